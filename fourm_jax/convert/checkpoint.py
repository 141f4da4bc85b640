"""Published checkpoints and their converted copies on disk: trunks and tokenizers alike.

A converted tokenizer is a tokenizer folder like any other (`tokenizers.base`). A converted trunk
is a folder with trunk.json (the published config, what replaces fields of the modality table, and
whether heads are tied) and weights.safetensors (our parameter paths, float32).
"""

import dataclasses
import inspect
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import PyTree

from fourm_jax.convert import (
    fourm,
    fourm_config,
    hub,
    safetensors_io,
    tokenizer_config,
    tokenizer_export,
    tokenizers,
)
from fourm_jax.convert.report import Report
from fourm_jax.models.backbones import vit
from fourm_jax.models.fourm import FourM
from fourm_jax.tokenizers import base
from fourm_jax.tokenizers.card import check_arguments
from fourm_jax.tokenizers.trained import TrainedTokenizer
from fourm_jax.utils import errors, folders, io, plain_data

LICENCE = (
    "Published 4M weights come under their own licence (Apple's Sample Code licence, see the "
    "model card), not under that of this package; do not pass them on."
)
TRUNK, WEIGHTS, FORMAT = "trunk.json", "weights.safetensors", 1
PUBLISHED = "published.json"  # a converted tokenizer keeps the config that it came with


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A loaded trunk: `model.apply({"params": params}, tokens)`."""

    model: FourM
    params: Mapping[str, Any]


def load(
    source: str | os.PathLike,
    *,
    overrides: Mapping[str, Any] | None = None,
    shardings: PyTree | None = None,
    dtype: str | None = None,
) -> Trunk | TrainedTokenizer:
    """Load a trunk or a tokenizer, published or converted.

    Args:
      source: folder, .safetensors file, or Hub id such as "EPFL-VILAB/4M-21_B".
      overrides: fields of modality specs that differ from the registry (published trunks).
      shardings: where each parameter of a trunk goes, a tree like the parameters; default: the
        default device. The host never holds more than one of them.
      dtype: "float32" or "bfloat16", of the computation; default: as the checkpoint says, else
        float32. Parameters, losses, logits, ids and codes are float32 or integers in any case.

    Raises:
      ValueError: nothing there, or something that does not fit, by name (`hub.locate`,
        `fourm.open_checkpoint`, `convert.tokenizers.import_tensors`); an unknown dtype, or one
        that this tokenizer does not have. Pickles are refused.
    """
    if dtype is not None:
        vit.compute_dtype(dtype)
    path = hub.locate(source)
    if (path / "card.json").exists():
        return in_dtype(base.load_trained(path), dtype)
    if (path / TRUNK).exists():
        return in_dtype(_read_trunk(path, shardings), dtype)
    config, weights = fourm_config.read(path)
    if "domains_in" in config:
        trunk = Trunk(*fourm.load(path, overrides=overrides, shardings=shardings))
        return in_dtype(trunk, dtype)
    return in_dtype(_published_tokenizer(config, weights)[0], dtype)


def convert(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    overrides: Mapping[str, Any] | None = None,
) -> Report:
    """Write the converted copy of a published checkpoint, tensor by tensor for trunks.

    Raises:
      FileExistsError: `output` exists; nothing is overwritten.
      ValueError: as `load`; then no output is left.
    """
    output = folders.new(output)
    path = hub.locate(source)
    config, weights = fourm_config.read(path)
    if "domains_in" not in config:
        loaded, report = _published_tokenizer(config, weights)
        with folders.complete_or_absent(output) as partial:
            partial.rmdir()  # a tokenizer folder is made by `base.save` alone
            base.save(partial, loaded.module, loaded.variables, loaded.card)
            io.write_json(partial / PUBLISHED, dict(config))
        return report
    checkpoint = fourm.open_checkpoint(path, overrides=overrides)
    header = {
        "format": FORMAT,
        "config": fourm_config.from_model(checkpoint.model),
        "overrides": dict(overrides or {}),
        "tie_heads": checkpoint.model.tie_heads,
    }
    shapes = fourm.parameter_shapes(checkpoint.model)
    announced = {"/".join(name): (np.dtype(np.float32), s) for name, s in shapes.items()}
    arrays = (("/".join(name), leaf) for name, leaf in checkpoint.leaves())
    with folders.complete_or_absent(output) as partial:
        io.write_json(partial / TRUNK, header)
        safetensors_io.write(partial / WEIGHTS, announced, arrays)
    return checkpoint.report


def export(source: str | os.PathLike, output: str | os.PathLike) -> None:
    """Write a trunk or a tokenizer (converted, published, or a tokenizer of ours) as published.

    Raises:
      FileExistsError: `output` exists; nothing is overwritten.
      ValueError: as `load`; something that the published format does not have, by name
        (`tokenizer_export.published_config`); a VQControlNet.
    """
    output = folders.new(output)
    loaded = load(source)
    if isinstance(loaded, Trunk):
        fourm.export(output, loaded.model, loaded.params)
        return
    config = _published_config(hub.locate(source), loaded)
    tensors = tokenizers.export_tensors(loaded.module, loaded.variables)
    announced = {name: (array.dtype, array.shape) for name, array in tensors.items()}
    header = tokenizer_export.header(config)
    with folders.complete_or_absent(output) as partial:
        io.write_json(partial / "config.json", config)
        safetensors_io.write(partial / fourm_config.WEIGHTS, announced, tensors.items(), header)


def _published_tokenizer(
    config: Mapping[str, Any], weights: pathlib.Path
) -> tuple[TrainedTokenizer, Report]:
    if "codebook_size" not in config:
        raise ValueError(
            f"{weights}: config with {sorted(config)[:8]} is neither a trunk's (domains_in) nor a "
            "tokenizer's (codebook_size)"
        )
    file = safetensors_io.open_weights(weights)
    name = _name(weights)
    with errors.described_by(weights):
        family, arguments = tokenizer_export.own_arguments(config) or tokenizer_config.arguments_of(
            config, signal=tokenizer_config.natural_signal(config, name)
        )
        check_arguments(arguments, "config")
        tensors = safetensors_io.Tensors(file)
        module, variables, report = tokenizers.import_tensors(family, arguments, tensors)
    return TrainedTokenizer(module, variables, base.make_card(name, family, arguments)), report


def _name(weights: pathlib.Path) -> str:
    """What a checkpoint is called: its folder, its file, or its repository in the Hub's cache."""
    if weights.name not in (fourm_config.WEIGHTS, fourm_config.PARTS):
        return weights.stem
    folder = weights.parent
    return folder.parents[1].name if folder.parent.name == "snapshots" else folder.name


def _published_config(path: epath.Path, loaded: TrainedTokenizer) -> dict[str, Any]:
    """Config of a published tokenizer, that it was converted from, or made for one of ours."""
    if (path / PUBLISHED).exists():
        config = io.read_json(path / PUBLISHED)
        plain_data.check(config, {}, path / PUBLISHED)
        return config
    if (path / "card.json").exists():
        try:
            return tokenizer_export.published_config(loaded.card.family, loaded.card.arguments)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return fourm_config.read(path)[0]


def in_dtype(loaded: Trunk | TrainedTokenizer, dtype: str | None) -> Trunk | TrainedTokenizer:
    """The same weights, computing in another type."""
    if dtype is None:
        return loaded
    if isinstance(loaded, Trunk):
        return Trunk(loaded.model.clone(dtype=jnp.dtype(dtype)), loaded.params)
    card = loaded.card
    if "dtype" not in inspect.signature(base.get(card.family).build).parameters:
        if dtype == "float32":
            return loaded
        raise ValueError(f"tokenizer {card.name!r} of family {card.family!r} has float32 only")
    card = dataclasses.replace(card, arguments={**card.arguments, "dtype": dtype})
    return TrainedTokenizer(base.build(card.family, card.arguments), loaded.variables, card)


def _read_trunk(path: epath.Path, shardings: PyTree | None) -> Trunk:
    header = io.read_json(path / TRUNK)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path / TRUNK}: expected a description of format {FORMAT}")
    with errors.described_by(f"{path / TRUNK}: no description of a trunk"):
        model = fourm_config.to_model(
            header["config"], overrides=header["overrides"], tie_heads=bool(header["tie_heads"])
        )
        parameters = fourm.parameter_shapes(model)
    file = safetensors_io.SafeFile(path / WEIGHTS)
    shapes = {"/".join(name): shape for name, shape in parameters.items()}
    for name in sorted({*shapes, *file.names}):
        found = file.tensors[name].shape if name in file.tensors else "nothing"
        if found != shapes.get(name):
            raise ValueError(f"{file.path}: {name!r} is {found}, expected {shapes.get(name)}")
    placed = flax.traverse_util.flatten_dict(shardings, sep="/") if shardings else {}
    flat = {
        name: jax.device_put(file.read(name), placed[name] if placed else None) for name in shapes
    }
    return Trunk(model, flax.traverse_util.unflatten_dict(flat, sep="/"))
