"""Think first: predict some inputs of an encoder from the others, in one pass of a trunk."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from fourm_jax.contracts import AnyArray, TargetTokens, TokenBatch
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import all_visible
from fourm_jax.models.fourm import FourM


def questions(
    thinker: FourM, batch: Mapping[str, Any], visible: Bool[AnyArray, "b m"] | None = None
) -> TokenBatch:
    """All that the thinker sees of a batch, and every token of its outputs as a target.

    Args:
      visible: which samples see which of its inputs; None = all.
    """
    names = [spec.name for spec in thinker.modalities]
    shown = all_visible.show(batch, thinker.inputs, thinker.modalities, visible)
    sizes = [_spec(thinker, name).num_tokens for name in thinker.outputs]
    modality = np.repeat([names.index(name) for name in thinker.outputs], sizes)
    position = np.concatenate([np.arange(size) for size in sizes])
    shape = (len(shown.inputs.id), len(position))
    zeros = jnp.zeros(shape, jnp.int32)
    targets = TargetTokens(
        modality=jnp.broadcast_to(jnp.asarray(modality, jnp.int32), shape),
        position=jnp.broadcast_to(jnp.asarray(position, jnp.int32), shape),
        input_id=zeros,
        id=zeros,
        valid=zeros == 0,
        order=zeros,
    )
    return dataclasses.replace(shown, targets=targets)


def answers(thinker: FourM, params: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of the batch contract with the most likely ids of every output, without gradient."""
    features: Any = thinker.apply({"params": params}, questions(thinker, batch))
    entries, start = {}, 0
    for name in thinker.outputs:
        size = _spec(thinker, name).num_tokens
        logits: Any = thinker.apply(
            {"params": params}, features[:, start : start + size], name, method="logits"
        )
        ids = jax.lax.stop_gradient(logits).argmax(-1)
        entries[name] = {"ids": ids, "present": jnp.ones(len(ids), bool)}
        start += size
    return entries


def blank(thinker: FourM, num_samples: int) -> dict[str, Any]:
    """Entries in the shapes of `answers`, to initialize with."""
    present = jnp.ones(num_samples, bool)
    sizes = {name: _spec(thinker, name).num_tokens for name in thinker.outputs}
    return {
        name: {"ids": jnp.zeros((num_samples, size), jnp.int32), "present": present}
        for name, size in sizes.items()
    }


def _spec(model: FourM, name: str) -> ModalitySpec:
    return next(spec for spec in model.modalities if spec.name == name)
