"""Normalized sums of token losses: mean over modalities, or over tokens (docs/published.md#losses).

Sums run over the whole (global) batch with its true counts, so that the loss does not depend
on how the batch is cut over devices. The published normalizations are the optional arguments.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def modality_losses(
    loss: Float[Array, "b m"],
    modality: Int[Array, "b m"],
    valid: Bool[Array, "b m"],
    num_modalities: int,
) -> tuple[Float[Array, "modalities"], Float[Array, "modalities"]]:
    """Return (sum of the losses, number of tokens) of every modality, float32."""
    one_hot = jax.nn.one_hot(modality, num_modalities) * valid[..., None]
    return jnp.einsum("bm,bmk->k", jnp.where(valid, loss, 0), one_hot), one_hot.sum((0, 1))


def mod_loss(
    loss: Float[Array, "b m"],
    modality: Int[Array, "b m"],
    valid: Bool[Array, "b m"],
    num_modalities: int,
    *,
    divisor: int | None = None,
) -> Float[Array, ""]:
    """Mean over the modalities that occur of the mean over their tokens.

    Args:
      divisor: what to divide the sum of the modality means by. Published behaviour: the number of
        target modalities of the model, whether or not they occur.
    """
    sums, counts = modality_losses(loss, modality, valid, num_modalities)
    means = sums / jnp.maximum(counts, 1)
    return means.sum() / (jnp.maximum((counts > 0).sum(), 1) if divisor is None else divisor)


def token_loss(
    loss: Float[Array, "b m"],
    modality: Int[Array, "b m"],
    valid: Bool[Array, "b m"],
    num_modalities: int,
    *,
    weights: Sequence[float] | None = None,
) -> Float[Array, ""]:
    """Mean over all tokens.

    Args:
      weights: of the tokens of each modality. Published behaviour: the vocabulary sizes (there a
        modality is weighted by the number of elements of its logits).
    """
    sums, counts = modality_losses(loss, modality, valid, num_modalities)
    scale = jnp.ones(num_modalities) if weights is None else jnp.asarray(weights, jnp.float32)
    total = (counts * scale).sum()
    return (sums * scale).sum() / jnp.where(total > 0, total, 1)
