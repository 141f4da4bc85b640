"""fm/: trunks with their hidden states, logits, losses and gradients, and their way in and out."""

import json
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from experiments.parity import quantity as quantities
from experiments.parity import reference_batch, reference_outputs
from experiments.parity.quantity import GRADIENT, LOSS, Quantity, Recorded
from fourm_jax.convert import fourm, fourm_config, safetensors_io
from fourm_jax.ops import attention

FILES = (
    "model.safetensors",
    "config.json",
    "hub_file.json",
    "modality_overrides.json",
    "inputs.safetensors",
    "outputs.safetensors",
    "meta.json",
)


class Case:
    """Model, parameters, tokens and expected numbers of one case."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.meta = json.loads((directory / "meta.json").read_text())
        self.overrides = read_overrides(directory)
        self.model, self.params = fourm.load(directory, overrides=self.overrides)
        self.inputs = quantities.load(directory / "inputs.safetensors")
        self.expected = quantities.load(directory / "outputs.safetensors")
        self.tokens = reference_batch.from_mod_dict(
            reference_batch.group(self.inputs),
            self.model.modalities,
            input_order=self.meta["encoder_modality_order"],
            target_order=self.meta["decoder_modality_order"],
            num_inputs=self.meta["num_encoder_tokens"],
            num_targets=self.meta["num_decoder_tokens"],
        )

    def index(self, name: str) -> int:
        return [spec.name for spec in self.model.modalities].index(name)

    def valid_inputs(self) -> np.ndarray:
        registers = ((0, 0), (self.model.num_registers, 0))
        return np.pad(self.tokens.inputs.valid, registers, constant_values=True)


def read_overrides(directory: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Fields that replace those of the modality table; none where the case has no such file."""
    file = directory / "modality_overrides.json"
    if not file.exists():
        return {}
    return fourm_config.spec_overrides(json.loads(file.read_text())["overrides"])


def cases(folder: pathlib.Path) -> Iterator[tuple[str, Iterator[Quantity]]]:
    """One case per folder."""
    for path in sorted(folder.iterdir()):
        yield path.name, check(path)


def check(directory: pathlib.Path) -> Iterator[Quantity]:
    """Everything of one case."""
    yield from quantities.unknown(p.name for p in directory.iterdir() if p.name not in FILES)
    case = Case(directory)
    expected = Recorded(case.expected)
    yield from choice(case, expected)
    yield from hidden_states(case, expected)
    yield from losses(case, expected)
    yield from round_trip(case)
    yield from expected.unread()


def choice(case: Case, expected: Mapping[str, np.ndarray]) -> Iterator[Quantity]:
    """Which tokens the forward pass picks, and which targets see which."""
    ids = np.array([spec.id for spec in case.model.modalities])
    inputs, targets = case.tokens.inputs, case.tokens.targets
    modality = np.where(inputs.valid, ids[inputs.modality], -1)
    registers = np.full((len(modality), case.model.num_registers), -1)
    found = {
        "encoder_mod_mask": np.hstack([registers, modality]),
        "decoder_mod_mask": np.where(targets.valid, ids[targets.modality], -1),
        "encoder_mask": ~case.valid_inputs()[:, None],
        "decoder_mask": ~targets.valid[:, None],
    }
    for name, value in found.items():
        yield Quantity(name, value, expected[name])
    valid = targets.valid
    yield Quantity("target_ids", targets.id[valid], expected["target_ids"][valid])
    ranks: Any = case.model.apply({"params": case.params}, targets, method="segment_and_order")
    segment, order = ranks
    sees = attention.Visibility(segment, jnp.where(valid, segment, -1), order, order).mask()[:, 0]
    pairs = valid[:, :, None] & valid[:, None, :]
    name = "decoder_attention_mask"
    yield Quantity(name, ~np.asarray(sees)[pairs], expected[name][pairs])


def hidden_states(case: Case, expected: Mapping[str, np.ndarray]) -> Iterator[Quantity]:
    """Embeddings, encoder, context, decoder and logits, where slots are valid."""
    targets = case.tokens.targets
    run = jax.jit(lambda params, tokens: reference_outputs.forward(case.model, params, tokens))
    for key, found in run(case.params, case.tokens).items():
        found = np.asarray(found)
        if key not in expected:
            continue  # a modality without targets has no logits
        if key.startswith("logits/"):
            index = case.index(key.removeprefix("logits/"))
            found, recorded = found[targets.valid & (targets.modality == index)], expected[key]
        else:
            valid = targets.valid if key.startswith("decoder") else case.valid_inputs()
            found, recorded = found[valid], expected[key][valid]
        yield Quantity(key, found, recorded)


def losses(case: Case, expected: Mapping[str, np.ndarray]) -> Iterator[Quantity]:
    """Both losses, their parts per modality, and the gradients."""
    values, gradients = reference_outputs.losses_and_gradients(
        case.model, case.params, case.tokens, len(case.meta["decoder_modality_order"])
    )
    for kind in ("mod", "token"):
        total = values[f"loss_{kind}"]
        yield Quantity(f"meta/loss_{kind}", total, case.meta[f"loss_{kind}"], LOSS)
        for key in sorted(expected):
            if key.split("/")[0] == f"loss_{kind}":
                found = values[key.replace("loss_token/", "loss_mod/")]
                yield Quantity(key, np.reshape(found, 1), expected[key], LOSS)
        norms = case.meta[f"grad_norms_{kind}"]
        lengths = [np.linalg.norm(gradients[kind][key]) for key in norms]
        recorded = [float(norm or 0) for norm in norms.values()]
        yield Quantity(f"meta/grad_norms_{kind}", lengths, recorded, GRADIENT)
        for key in sorted(expected):
            if key.startswith(f"grad_{kind}/"):
                gradient = gradients[kind][key.removeprefix(f"grad_{kind}/")]
                yield Quantity(key, gradient, expected[key], GRADIENT)


def round_trip(case: Case) -> Iterator[Quantity]:
    """Out with the published names, bit for bit; and in from a file without shared tensors."""
    file = safetensors_io.SafeFile(case.directory / "model.safetensors")
    published = {name: file.read(name).astype(np.float32) for name in file.names}
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch) / "out"
        fourm.export(out, case.model, case.params)
        exported = quantities.load(out / "model.safetensors")
        yield Quantity("export/names", sorted(exported), sorted(published))
        tables = [name for name in published if name.endswith("pos_emb")]
        for name in tables:
            tolerance = quantities.table_tolerance(file.tensors[name].dtype)
            yield Quantity(f"export/{name}", exported[name], published[name], tolerance)
        same = [n for n in published if np.array_equal(exported[n], published[n])]
        yield Quantity("export/bits", sorted({*same, *tables}), sorted(published))
        hub_file = case.directory / "hub_file.json"
        if hub_file.exists():
            hub = json.loads(hub_file.read_text())
            kept, dropped = hub["keys"], hub.get("keys_missing_vs_model_safetensors")
            if dropped is not None:
                found = sorted({*exported} - {*kept})
                yield Quantity("hub_file/dropped", found, sorted(dropped))
            (out / "model.safetensors").unlink()
            save_file({key: published[key] for key in kept}, out / "model.safetensors")
            _, params = fourm.load(out, overrides=case.overrides)
            equal = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), params, case.params)
            yield Quantity("hub_file", jax.tree.leaves(equal), [True] * len(jax.tree.leaves(equal)))
