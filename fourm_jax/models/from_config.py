"""The trunk that a config describes: what training builds, and what a finished run is read into."""

from typing import Any

import jax.numpy as jnp
import ml_collections

from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import fourm
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

MODALITIES_KEYS = ("family", "inputs", "outputs", "overrides", "added")
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
        inputs=tuple(config.modalities.inputs),
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
    names = tuple(dict.fromkeys((*group.inputs, *group.outputs)))
    overrides = config_lib.plain(group.get("overrides", {}))
    return registry.resolve(group.family, names, overrides, added_of(config))


def added_of(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
    """The modalities that the config itself describes, as `registry.resolve` takes them."""
    return config_lib.plain(config.modalities.get("added", {}))
