"""What a prediction head gets, and what it is: one file each, found by name, with `make`."""

from typing import Protocol, runtime_checkable

import flax
from jaxtyping import Array, Bool, Float


@flax.struct.dataclass
class Features:
    """Encoder features of a batch.

    Attributes:
      tokens: of all inputs, after the final norm.
      valid: which of them exist.
      grid: those of the first input, a picture, row by row as it stands.
    """

    tokens: Float[Array, "b s d"]
    valid: Bool[Array, "b s"]
    grid: Float[Array, "b rows columns d"]

    def mean(self) -> Float[Array, "b d"]:
        """Average over the tokens that exist."""
        weights = self.valid.astype(self.tokens.dtype)[..., None]
        return (self.tokens * weights).sum(1) / weights.sum(1).clip(1)


@runtime_checkable
class Head(Protocol):
    """A Flax module; `make(num_outputs, image_size, **options)` of its file returns one."""

    def __call__(self, features: Features, train: bool = False) -> Array:
        """Logits or values: [b, k] of a picture, or [b, h, w, k] of its pixels."""
