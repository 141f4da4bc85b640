"""The trunk that a config describes: what training builds, and what a finished run is read into."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import ml_collections

from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import fourm
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

MODALITIES_KEYS = ("family", "inputs", "outputs", "overrides", "added")
# Keys of an input that is described in one line: {"name": "ndvi", "channels": 1}, or the names of
# several, is a picture; {"name": "weather", "width": 16, "length": 1} is a list of float vectors.
RAW_KEYS = ("name", "channels", "width", "length")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def make_model(config: ml_collections.ConfigDict) -> fourm.FourM:
    """The trunk of a config, without parameters.

    Raises:
      ValueError: an unknown key, modality or dtype, or a value that the trunk refuses.
    """
    if config.dtype not in DTYPES:
        raise ValueError(errors.unknown_value("dtype", config.dtype, DTYPES))
    config_lib.check_group(config.modalities, "modalities", MODALITIES_KEYS)
    # a transfer takes the encoder alone
    for key in ("inputs",) if config.task == "transfer" else ("inputs", "outputs"):
        if not config.modalities[key]:
            raise ValueError(f"config key 'modalities.{key}' is empty")
    given_here = ("modalities", "inputs", "outputs", "dtype", "parent", "name")
    model = fourm.FourM(
        modalities=resolve_specs(config),
        inputs=input_names(config),
        outputs=tuple(config.modalities.outputs),
        dtype=DTYPES[config.dtype],
        **config_lib.fields_of(config, "model", fourm.FourM, except_names=given_here),
    )
    fourm.check(model)
    return model


def resolve_specs(config: ml_collections.ConfigDict) -> tuple[ModalitySpec, ...]:
    """Modalities of a trunk: its inputs, then the outputs that are not inputs too.

    Raises:
      ValueError: a family, modality or field of a modality that does not exist.
    """
    group = config.modalities
    names = tuple(dict.fromkeys((*input_names(config), *group.outputs)))
    overrides = config_lib.plain(group.get("overrides", {}))
    return registry.resolve(group.family, names, overrides, added_of(config))


def input_names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Names of the inputs, raw ones (`RAW_KEYS`) among them.

    Raises:
      ValueError: an input that is neither a name nor a raw one.
    """
    names = []
    for one in config.modalities.inputs:
        if not isinstance(one, str):
            if not isinstance(one, Mapping) or "name" not in one:
                raise ValueError(f"modalities.inputs: {one!r} is no name and has none")
            config_lib.check_group(ml_collections.ConfigDict(dict(one)), "raw input", RAW_KEYS)
        names.append(one if isinstance(one, str) else one["name"])
    return tuple(names)


def added_of(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
    """The modalities that the config itself describes, as `registry.resolve` takes them.

    Raises:
      ValueError: a raw input that says neither channels nor width, or both.
    """
    added = config_lib.plain(config.modalities.get("added", {}))
    raw = [one for one in config.modalities.inputs if not isinstance(one, str)]
    if not raw:
        return added
    input_names(config)
    overrides = config_lib.plain(config.modalities.get("overrides", {}))
    picture = next(
        (
            spec.replace(**overrides.get(spec.name, {}))
            for spec in registry.FAMILIES[config.modalities.family]
            if spec.kind == "pixels" and spec.name in config.modalities.inputs
        ),
        None,
    )
    return {**added, **{one["name"]: _raw_input(config_lib.plain(one), picture) for one in raw}}


def _raw_input(one: Mapping[str, Any], picture: ModalitySpec | None) -> dict[str, Any]:
    """Fields of a raw input: float vectors, or a picture on the grid of the first one."""
    if ("channels" in one) == ("width" in one):
        raise ValueError(f"raw input {one['name']!r}: say channels of a picture, or a width")
    if "width" in one:
        length = one.get("length", 1)
        vectors = {"embedding_dim": one["width"], "max_tokens": length}
        return {"kind": "embedding", "source": one["name"], **vectors}
    if picture is None:
        raise ValueError(f"raw input {one['name']!r}: there is no picture whose grid it could have")
    channels = one["channels"]
    which = {"num_channels": channels} if isinstance(channels, int) else {"channels": channels}
    place = {"grid": picture.grid, "patch_size": picture.patch_size}
    return {"kind": "pixels", "source": one["name"], **place, **which}
