"""What a prediction head gets, and what it is: one file each, found by name, with `make`."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import flax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fourm_jax.modalities.spec import ALIGNED_KINDS, ModalitySpec

# What becomes of several inputs on one grid: the first alone, their mean or largest value where
# they exist, or all of them side by side (0 where one does not exist).
MERGES = ("none", "mean", "max", "concat")


@flax.struct.dataclass
class Features:
    """Features of a batch, of the encoder and of the decoder where that is asked.

    Attributes:
      tokens: of all inputs, after the final norm; then of all positions of the outputs that the
        decoder is asked for.
      valid: which of them exist.
      grid: those of the first input, a picture, row by row as it stands; merged with those of
        other inputs and of outputs on the same grid where that is asked for.
      levels: like `grid`, after those blocks that the head names in its field `depths`, without the
        final norm.
    """

    tokens: Float[Array, "b s d"]
    valid: Bool[Array, "b s"]
    grid: Float[Array, "b rows columns e"]
    levels: tuple[Float[Array, "b rows columns f"], ...] = ()

    def mean(self) -> Float[Array, "b d"]:
        """Average over the tokens that exist."""
        weights = self.valid.astype(self.tokens.dtype)[..., None]
        return (self.tokens * weights).sum(1) / weights.sum(1).clip(1)


@runtime_checkable
class Head(Protocol):
    """A Flax module; `make(num_outputs, image_size, **options)` of its file returns one.

    One with a field `depths`, numbers of encoder blocks from 1 on, gets their features as `levels`.
    """

    def __call__(self, features: Features, train: bool = False) -> Array:
        """Logits or values: [b, k] of a picture, or [b, h, w, k] of its pixels."""


def merge_grids(
    tokens: Float[Array, "b s d"],
    valid: Bool[Array, "b s"],
    specs: Sequence[ModalitySpec],
    merge: str,
) -> Float[Array, "b rows columns e"]:
    """Features on the grid of the first input, merged with those of the others that share it.

    Args:
      specs: of inputs and outputs, in the order of their slots.
      merge: one of `MERGES`; with "concat" e is d times the number of these inputs, else d.
    """
    first = specs[0]
    grids, seen, start = [], [], 0
    for spec in specs:
        stop = start + spec.num_tokens
        if spec.kind in ALIGNED_KINDS and spec.grid == first.grid and spec.codes_per_position == 1:
            grids.append(tokens[:, start:stop])
            seen.append(valid[:, start:stop, None])
        start = stop
    if merge == "none":
        chosen = grids[0]
    elif merge == "concat":
        parts = [jnp.where(mask, grid, 0) for grid, mask in zip(grids, seen, strict=True)]
        chosen = jnp.concatenate(parts, axis=-1)
    else:
        stacked, masks = jnp.stack(grids), jnp.stack(seen)
        if merge == "mean":
            chosen = jnp.where(masks, stacked, 0).sum(0) / masks.sum(0).clip(1)
        else:
            largest = jnp.where(masks, stacked, -jnp.inf).max(0)
            chosen = jnp.where(masks.any(0), largest, 0)
    return chosen.reshape(len(chosen), *first.grid, chosen.shape[-1])
