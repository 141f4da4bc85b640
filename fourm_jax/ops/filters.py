"""Top-k and nucleus filters of logits, without a sort (`ops.threshold`).

What they keep is defined by the sorted order all the same, ties included.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fourm_jax.ops import threshold


def check_filters(top_k: int | float, top_p: float) -> None:
    """Check the settings of the filters.

    Raises:
      ValueError: negative or non-integer count in `top_k` (a float must lie in [0, 1]), or
        `top_p` outside [0, 1].
    """
    if top_k < 0 or (isinstance(top_k, float) and top_k > 1):
        raise ValueError(f"top_k {top_k!r}, allowed: an int >= 0 (count) or a float in [0, 1]")
    if not 0 <= top_p <= 1:
        raise ValueError(f"top_p {top_p!r}, allowed: 0 (off) to 1")


def filter_top_k(logits: Float[Array, "*n v"], top_k: int | float) -> Float[Array, "*n v"]:
    """Set all but the `top_k` largest logits to -inf; ties with the last one kept stay.

    Args:
      logits: any real values, or -inf.
      top_k: int: how many; float in [0, 1]: which share of the vocabulary
        (docs/published.md#generation); 0 keeps everything.
    """
    vocab_size = logits.shape[-1]
    count = max(int(top_k * vocab_size) if isinstance(top_k, float) else top_k, 1)
    if top_k == 0 or count >= vocab_size:
        return logits
    smallest_kept = threshold.smallest_within(logits, jnp.ones_like, count - 1)
    return jnp.where(logits < smallest_kept[..., None], -jnp.inf, logits)


def filter_top_p(logits: Float[Array, "*n v"], top_p: float) -> Float[Array, "*n v"]:
    """Keep the smallest set of most likely ids whose probability reaches `top_p`; 0 keeps all.

    The id that crosses the threshold stays, so at least one always does. Of equal ids the first
    ones are kept.
    """
    if top_p == 0:
        return logits
    largest = logits.max(-1, keepdims=True)
    total = jnp.exp(logits - largest).sum(-1, keepdims=True)

    def likelihood(values: Array) -> Array:
        return jnp.exp(values - largest) / total

    probs = likelihood(logits)
    crossing = threshold.smallest_within(logits, likelihood, top_p)[..., None]
    above, tied = logits > crossing, logits == crossing
    left = top_p - jnp.where(above, probs, 0.0).sum(-1)
    each = jnp.where(tied, probs, 0.0).max(-1)
    num_tied = tied.sum(-1)
    num_kept = num_kept_of_tied(left, each, num_tied)
    kept = above | jax.lax.cond(
        (num_kept < num_tied).any(), _first, lambda mask, _: mask, tied, num_kept
    )
    return jnp.where(kept, logits, -jnp.inf)


def num_kept_of_tied(
    left: Float[Array, "*n"], each: Float[Array, "*n"], num_tied: Int[Array, "*n"]
) -> Int[Array, "*n"]:
    """How many of equal ids a nucleus keeps: the i-th has i others like itself before it.

    Args:
      left: of the nucleus's mass, what the more likely ids do not take.
      each: probability of one of them; 0: all are kept.
    """
    num_kept = jnp.floor(left / jnp.where(each > 0, each, 1.0)) + 1
    return jnp.where(each > 0, jnp.clip(num_kept, 1, num_tied), num_tied).astype(jnp.int32)


def _first(mask: Array, count: Int[Array, "*n"]) -> Array:
    """The first `count` True of every row."""
    return mask & (jnp.cumsum(mask, axis=-1) <= count[..., None])
