"""The TokenBatch: what the trunk sees, in training and in generation alike."""

from typing import Any

import flax
import jax
from jaxtyping import Array, Bool, Float, Int, UInt8

Batch = dict[str, Any]  # {modality: {"ids", "present" | "length", ...}, ..., "mixture": [b]}


@flax.struct.dataclass
class InputTokens:
    """Visible tokens, all [b, n]; `valid` False marks a slot that holds nothing.

    Attributes:
      modality: index into the model's tuple of modality specs.
      position: index in the grid; for sequences and embeddings the running count of visible
        tokens of that modality (dense, 0-based; docs/published.md#embeddings).
      id: token id. Pixels: 0, their content is gathered by `position`. Embeddings: 1 + index of
        the vector in `TokenBatch.embeddings`, and 0 for the zero vector of a masked span.
      valid: True where the slot carries a token.
    """

    modality: Int[Array, "b n"]
    position: Int[Array, "b n"]
    id: Int[Array, "b n"]
    valid: Bool[Array, "b n"]


@flax.struct.dataclass
class TargetTokens:
    """Tokens to predict, all [b, m].

    Attributes:
      modality, position, valid: as for the inputs; sequence positions count target slots from 0.
      input_id: previous token for sequences (teacher forcing); ignored for grid and global
        targets, whose content is the learned mask token.
      id: what to predict.
      order: attention rank; query i sees key j of its own modality iff order_j <= order_i
        (equal inside a grid, increasing along a sequence).
    """

    modality: Int[Array, "b m"]
    position: Int[Array, "b m"]
    input_id: Int[Array, "b m"]
    id: Int[Array, "b m"]
    valid: Bool[Array, "b m"]
    order: Int[Array, "b m"]


@flax.struct.dataclass
class TokenBatch:
    """Inputs, targets and the float content that pixel and embedding inputs point into.

    Attributes:
      inputs, targets: see `InputTokens`, `TargetTokens`.
      pixels: images by modality name, uint8 in 0..255, or float already normalised.
      embeddings: float vectors by modality name.
    """

    inputs: InputTokens
    targets: TargetTokens
    pixels: dict[str, UInt8[Array, "b h w c"] | Float[Array, "b h w c"]]
    embeddings: dict[str, Float[Array, "b l e"]]


def batch_size(tokens: TokenBatch) -> int:
    """Number of samples of a TokenBatch."""
    return jax.tree.leaves(tokens.inputs)[0].shape[0]
