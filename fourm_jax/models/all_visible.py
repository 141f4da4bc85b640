"""A TokenBatch that shows all of a batch and asks for nothing: for passes through the encoder."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool

from fourm_jax import contracts
from fourm_jax.contracts import AnyArray, InputTokens, TokenBatch
from fourm_jax.modalities.spec import ModalitySpec


def show(
    entries: Mapping[str, Any],
    names: Sequence[str],
    specs: Sequence[ModalitySpec],
    visible: Bool[AnyArray, "b m"] | None = None,
) -> TokenBatch:
    """Show every token of some modalities, one modality after the other.

    Args:
      entries: {modality: its entry of the batch contract}.
      names: modalities to show, in the order of their slots.
      specs: of the model.
      visible: which samples see which of `names`; None = all.
    """
    index = [spec.name for spec in specs]
    parts, pixels, embeddings = [], {}, {}
    for number, name in enumerate(names):
        spec, entry = specs[index.index(name)], entries[name]
        seen = None if visible is None else jnp.asarray(visible)[:, number]
        parts.append(_slots(spec, entry, index.index(name), seen))
        if spec.kind == "pixels":
            pixels[name] = entry["pixels"]
        elif spec.kind == "embedding":
            embeddings[name] = entry["embeddings"]
    modality, position, ids, valid = (
        jnp.concatenate(slots, axis=1) for slots in zip(*parts, strict=True)
    )
    # The valid tokens of one modality are its first ones, which is all that attention has to know.
    inputs = InputTokens(modality, position, ids, valid, packed=len(names) == 1)
    return TokenBatch(inputs, contracts.empty_targets(len(ids)), pixels, embeddings)


def _slots(
    spec: ModalitySpec, entry: Mapping[str, Any], number: int, seen: Bool[Array, "b"] | None
) -> tuple[Array, Array, Array, Array]:
    """Modality, position, id and validity of the slots of one modality, [b, n] each."""
    size = spec.num_tokens
    place = jnp.arange(size, dtype=jnp.int32)
    if "length" in entry:
        valid = place < jnp.asarray(entry["length"])[:, None]
    else:
        valid = jnp.tile(jnp.asarray(entry["present"])[:, None], (1, size))
    batch = len(valid)
    if "ids" in entry:
        ids = jnp.asarray(entry["ids"]).reshape(batch, size).astype(jnp.int32)
    elif spec.kind == "embedding":
        ids = jnp.broadcast_to(place + 1, (batch, size))
    else:
        ids = jnp.zeros((batch, size), jnp.int32)
    if seen is not None:
        valid = valid & seen[:, None]
    return (
        jnp.full((batch, size), number, jnp.int32),
        jnp.broadcast_to(place, (batch, size)),
        ids,
        valid,
    )
