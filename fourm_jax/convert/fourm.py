"""Published trunk weights in and out: exact both ways, parameter by parameter."""

import dataclasses
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fourm_jax.contracts import InputTokens, TargetTokens, TokenBatch
from fourm_jax.convert import fourm_config, names, published_form, safetensors_io
from fourm_jax.convert.report import Report
from fourm_jax.models.fourm import FourM
from fourm_jax.utils import errors, folders

# sin-cos tables differ in the last bits between libraries, and by the rounding of the file's dtype
BUFFER_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint whose names and shapes have been checked against its config.

    Attributes:
      file: the weights; nothing is read before `leaves`.
      model: what they belong to.
      report: filled from names alone.
    """

    file: safetensors_io.SafeFile
    model: FourM
    report: Report

    def leaves(self) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        """Yield (path, float32 array) of our parameters, one at a time.

        Raises:
          ValueError: a buffer or a shared tensor does not hold what it must.
        """
        parts: dict[tuple[str, ...], list[names.Entry]] = defaultdict(list)
        for entry in names.entries(self.model):
            if entry.name not in self.file.tensors:
                continue
            if entry.kind == "buffer":
                _check_buffer(self.file, entry)
            else:
                parts[entry.path].append(entry)
        for path, shape in parameter_shapes(self.model).items():
            leaf = np.empty(shape, np.float32)
            filled: dict[str, str] = {}
            for entry in parts[path]:
                part = self.file.read(entry.name)
                if str(entry.index) in filled:
                    if not np.array_equal(part, self.file.read(filled[str(entry.index)])):
                        raise ValueError(
                            f"{self.file.path}: {entry.name!r} and {filled[str(entry.index)]!r} "
                            "are one parameter of this model but differ"
                        )
                    continue
                filled[str(entry.index)] = entry.name
                leaf[entry.index] = entry.to_ours(part, leaf[entry.index].shape)
            yield path, leaf


def open_checkpoint(
    path: str | os.PathLike,
    *,
    overrides: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Check a folder or a .safetensors file against its own config; read no weights yet.

    Heads are tied where the file holds no heads of its own, or equal ones.

    Raises:
      ValueError: see `fourm_config.to_model` and `safetensors_io.SafeFile`; a tensor that is
        missing, left over, of another shape or not of a float dtype.
    """
    config, weights = fourm_config.read(path)
    file = safetensors_io.open_weights(weights)
    with errors.described_by(weights):
        model = fourm_config.to_model(config, overrides=overrides, tie_heads=_heads_are_tied(file))
        return Checkpoint(file, model, _check_names(file, model))


def load(
    path: str | os.PathLike,
    *,
    overrides: Mapping[str, Any] | None = None,
    shardings: PyTree | None = None,
) -> tuple[FourM, dict[str, Any]]:
    """Load a published trunk: (model, parameters) for `model.apply({"params": parameters}, …)`.

    Args:
      path: folder with config.json and model.safetensors, or one .safetensors file.
      overrides: see `fourm_config.to_model`.
      shardings: where each parameter goes, a tree like the parameters; default: the default
        device. The host never holds more than one of them.

    Raises:
      ValueError: anything that does not fit, by name.
    """
    checkpoint = open_checkpoint(path, overrides=overrides)
    placed = shardings and flax.traverse_util.flatten_dict(shardings)
    flat = {
        name: jax.device_put(leaf, placed[name] if placed else None)
        for name, leaf in checkpoint.leaves()
    }
    return checkpoint.model, flax.traverse_util.unflatten_dict(flat)


def export(directory: str | os.PathLike, model: FourM, params: Mapping[str, Any]) -> None:
    """Write config.json and model.safetensors with the published names, aliases and buffers.

    A model trained from scratch is first brought into the published form (`published_form.of`).

    Raises:
      FileExistsError: the directory exists; nothing is overwritten.
      ValueError: a model that the published format cannot say (`published_form.of`,
        `fourm_config.from_model`).
    """
    directory = folders.new(directory)
    if not model.as_published:
        model, params = published_form.of(model, params)
    config = fourm_config.from_model(model)
    with folders.complete_or_absent(directory) as partial:
        (partial / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        safetensors_io.write(
            partial / fourm_config.WEIGHTS,
            {entry.name: (np.dtype(np.float32), entry.shape) for entry in names.entries(model)},
            published_tensors(model, params),
            {key: str(value) for key, value in config.items()},
        )


def published_tensors(model: FourM, params: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (published name, float32 array) of parameters, or of gradients with their structure."""
    flat = flax.traverse_util.flatten_dict(params)
    for entry in names.entries(model):
        if entry.kind == "buffer":
            array = np.broadcast_to(np.asarray(entry.value, np.float32), entry.shape)
        else:
            array = entry.to_published(np.asarray(flat[entry.path][entry.index], np.float32))
        yield entry.name, array


def parameter_shapes(model: FourM) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shape of every parameter by path, without allocating any."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), example_tokens(model))["params"]
    return {path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(shapes).items()}


def example_tokens(model: FourM) -> TokenBatch:
    """The smallest TokenBatch that a model accepts: one sample, one slot on each side."""
    slot = jnp.zeros((1, 1), jnp.int32)
    specs = [spec for spec in model.modalities if spec.name in model.inputs]
    return TokenBatch(
        inputs=InputTokens(slot, slot, slot, slot == 0),
        targets=TargetTokens(slot, slot, slot, slot, slot == 0, slot),
        pixels={
            s.name: jnp.zeros((1, *s.image_shape), jnp.uint8) for s in specs if s.kind == "pixels"
        },
        embeddings={
            s.name: jnp.zeros((1, s.max_tokens, s.embedding_dim))
            for s in specs
            if s.kind == "embedding"
        },
    )


def _heads_are_tied(file: safetensors_io.SafeFile) -> bool:
    heads = [name for name in file.names if name.endswith(".to_logits.weight")]
    tables = [name.replace("to_logits", "token_emb") for name in heads]
    return all(
        table not in file.tensors or np.array_equal(file.read(head), file.read(table))
        for head, table in zip(heads, tables, strict=True)
    )


def _check_names(file: safetensors_io.SafeFile, model: FourM) -> Report:
    expected = {entry.name: entry for entry in names.entries(model)}
    left_over = sorted(set(file.names) - set(expected))
    if left_over:
        raise ValueError(
            f"{file.path}: {len(left_over)} tensors that this config does not explain: "
            f"{left_over[:5]}"
        )
    used: list[str] = []
    derived: list[str] = []
    have = set()
    for name, entry in expected.items():
        if name not in file.tensors:
            continue
        info, key = file.tensors[name], (entry.path, str(entry.index))
        if info.shape != entry.shape:
            raise ValueError(
                f"{file.path}: tensor {name!r} has shape {info.shape}, expected {entry.shape}; a "
                "vocabulary that differs from the registry is given by overrides"
            )
        if not jnp.issubdtype(info.dtype, jnp.floating):
            raise ValueError(f"{file.path}: tensor {name!r} is {info.dtype}, expected floats")
        (derived if entry.kind == "buffer" or key in have else used).append(name)
        have.add(key)
    wanted = {(e.path, str(e.index)): e.name for e in expected.values() if e.kind != "buffer"}
    missing = sorted(wanted[key] for key in wanted.keys() - have)
    if missing:
        raise ValueError(f"{file.path}: {len(missing)} tensors are missing: {missing[:5]}")
    return Report(tuple(used), tuple(derived))


def _check_buffer(file: safetensors_io.SafeFile, entry: names.Entry) -> None:
    found = file.read(entry.name)
    error = np.abs(found.astype(np.float32) - np.asarray(entry.value)).max()
    if not error <= BUFFER_TOLERANCE + float(jnp.finfo(found.dtype).eps):
        raise ValueError(
            f"{file.path}: {entry.name!r} differs by {error:.3g} from the constant it must be "
            "(sin-cos positions, or the zero bias of a norm without bias)"
        )
