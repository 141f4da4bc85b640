"""Published checkpoints and their converted copies on disk: trunks and tokenizers alike.

A converted tokenizer is a tokenizer folder like any other (`tokenizers.base`). A converted trunk
is a folder with trunk.json (the published config, what replaces fields of the modality table, and
whether heads are tied) and weights.safetensors (our parameter paths, float32).
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import flax
import jax
import numpy as np
from jaxtyping import PyTree

from fourm_jax.convert import (
    fourm,
    fourm_config,
    hub,
    safetensors_io,
    tokenizer_config,
    tokenizers,
)
from fourm_jax.models.fourm import FourM
from fourm_jax.tokenizers import base
from fourm_jax.utils import io

LICENCE = (
    "Published 4M weights come under their own licence (Apple's Sample Code licence, see the "
    "model card), not under that of this package; do not pass them on."
)
TRUNK, WEIGHTS, FORMAT = "trunk.json", "weights.safetensors", 1
PUBLISHED = "published.json"  # a converted tokenizer keeps the config that it came with
NO_CONTROLNET = (
    "a VQControlNet holds a whole Stable Diffusion, which is not read here; its ids are those of "
    "the RGB tokenizer that it was trained on: load that one"
)


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A loaded trunk: `model.apply({"params": params}, tokens)`."""

    model: FourM
    params: Mapping[str, Any]


def load(
    source: str | os.PathLike,
    *,
    overrides: Mapping[str, Mapping] | None = None,
    shardings: PyTree | None = None,
) -> Trunk | base.Loaded:
    """Load a trunk or a tokenizer, published or converted.

    Args:
      source: folder, .safetensors file, or Hub id such as "EPFL-VILAB/4M-21_B".
      overrides: fields of modality specs that differ from the registry (published trunks).
      shardings: where each parameter of a trunk goes, a tree like the parameters; default: the
        default device. The host never holds more than one of them.

    Raises:
      ValueError: nothing there, or something that does not fit, by name (`hub.locate`,
        `fourm.open_checkpoint`, `tokenizers.import_tensors`). Pickles are refused.
    """
    path = hub.locate(source)
    if (path / "card.json").exists():
        return base.load(path)
    if (path / TRUNK).exists():
        return _read_trunk(path, shardings)
    config, weights = fourm_config.read(path)
    if "domains_in" in config:
        return Trunk(*fourm.load(path, overrides=overrides, shardings=shardings))
    return _published_tokenizer(config, weights)[0]


def convert(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    overrides: Mapping[str, Mapping] | None = None,
) -> fourm.Report | tokenizers.Report:
    """Write the converted copy of a published checkpoint, tensor by tensor for trunks.

    Raises:
      FileExistsError: `output` exists; nothing is overwritten.
      ValueError: as `load`; then no output is left.
    """
    output = _new(output)
    path = hub.locate(source)
    config, weights = fourm_config.read(path)
    if "domains_in" not in config:
        loaded, report = _published_tokenizer(config, weights)
        with _complete_or_absent(output) as partial:
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
    with _complete_or_absent(output) as partial:
        io.write_json(partial / TRUNK, header)
        safetensors_io.write(partial / WEIGHTS, announced, arrays)
    return checkpoint.report


def export(source: str | os.PathLike, output: str | os.PathLike) -> None:
    """Write a converted copy (or a published checkpoint) with the published names.

    Raises:
      FileExistsError: `output` exists; nothing is overwritten.
      ValueError: as `load`; a tokenizer that does not come from a published one, whose config the
        published format needs.
    """
    output = _new(output)
    loaded = load(source)
    if isinstance(loaded, Trunk):
        fourm.export(output, loaded.model, loaded.params)
        return
    tensors = tokenizers.export_tensors(loaded.module, loaded.variables)
    announced = {name: (array.dtype, array.shape) for name, array in tensors.items()}
    config = _published_config(source)
    header = {name: str(value) for name, value in config.items()}
    with _complete_or_absent(output) as partial:
        io.write_json(partial / "config.json", config)
        safetensors_io.write(partial / "model.safetensors", announced, tensors.items(), header)


def _published_tokenizer(
    config: Mapping[str, Any], weights: pathlib.Path
) -> tuple[base.Loaded, tokenizers.Report]:
    if "sd_path" in config:
        raise ValueError(f"{weights}: {NO_CONTROLNET}")
    if "codebook_size" not in config:
        raise ValueError(
            f"{weights}: config with {sorted(config)[:8]} is neither a trunk's (domains_in) nor a "
            "tokenizer's (codebook_size)"
        )
    file = safetensors_io.SafeFile(weights)
    try:
        family, arguments = tokenizer_config.arguments_of(config, compat="ml-4m")
        tensors = {name: file.read(name) for name in file.names}
        module, variables, report = tokenizers.import_tensors(family, arguments, tensors)
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from error
    name = weights.parent.name if weights.name == "model.safetensors" else weights.stem
    return base.Loaded(module, variables, base.make_card(name, family, arguments)), report


def _published_config(source: str | os.PathLike) -> dict[str, Any]:
    """Config that a tokenizer was converted from, or of a published tokenizer itself."""
    path = hub.locate(source)
    if (path / PUBLISHED).exists():
        return io.read_json(path / PUBLISHED)
    if (path / "card.json").exists():
        raise ValueError(f"{path} has no {PUBLISHED}: it was not converted from a published one")
    return fourm_config.read(path)[0]


def _read_trunk(path: pathlib.Path, shardings: PyTree | None) -> Trunk:
    header = io.read_json(path / TRUNK)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path / TRUNK}: expected a description of format {FORMAT}")
    model = fourm_config.to_model(
        header["config"], overrides=header["overrides"], tie_heads=header["tie_heads"]
    )
    file = safetensors_io.SafeFile(path / WEIGHTS)
    shapes = {"/".join(name): shape for name, shape in fourm.parameter_shapes(model).items()}
    for name in sorted({*shapes, *file.names}):
        found = file.tensors[name].shape if name in file.tensors else "nothing"
        if found != shapes.get(name):
            raise ValueError(f"{file.path}: {name!r} is {found}, expected {shapes.get(name)}")
    placed = flax.traverse_util.flatten_dict(shardings, sep="/") if shardings else {}
    flat = {
        name: jax.device_put(file.read(name), placed[name] if placed else None) for name in shapes
    }
    return Trunk(model, flax.traverse_util.unflatten_dict(flat, sep="/"))


def _new(output: str | os.PathLike) -> pathlib.Path:
    output = pathlib.Path(output)
    if output.exists():
        raise FileExistsError(f"{output} exists; choose a new directory")
    return output


@contextlib.contextmanager
def _complete_or_absent(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder under another name, which gets its own when the block ends well."""
    partial = directory.with_name(f".{directory.name}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
