"""What every room shares: the Batch that the host makes, the TokenBatch that the trunk sees.

See docs/architecture.md#contracts. Shapes are of the global batch b.
"""

from typing import TypedDict

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, UInt8

AnyArray = Array | np.ndarray  # on the device or on the host


class GridEntry(TypedDict):
    """Modalities of kind "grid" and "global": token ids, row by row.

    Attributes:
      ids: uint16 or int32; a last axis only where the spec has several codes per position.
      present: False = the sample lacks the modality; its ids are 0.
    """

    ids: Integer[AnyArray, "b l"] | Integer[AnyArray, "b l codes"]
    present: Bool[AnyArray, "b"]


class SequenceEntry(TypedDict):
    """Modalities of kind "sequence": padded texts.

    Attributes:
      ids: uint16 or int32, 0 beyond the length.
      length: number of ids; 0 = the sample lacks the modality.
      chunk: which chunk a token belongs to. The tokens of a chunk are masked together; a token
        whose chunk is its own index is masked alone.
    """

    ids: Integer[AnyArray, "b l"]
    length: Int[AnyArray, "b"]
    chunk: Integer[AnyArray, "b l"]


class PixelsEntry(TypedDict):
    """Modalities of kind "pixels": pictures; `present` as in `GridEntry`."""

    pixels: UInt8[AnyArray, "b h w c"]
    present: Bool[AnyArray, "b"]


class EmbeddingEntry(TypedDict):
    """Modalities of kind "embedding": padded lists of vectors, bfloat16; `length` as in
    `SequenceEntry`."""

    embeddings: Float[AnyArray, "b l e"]
    length: Int[AnyArray, "b"]


Entry = GridEntry | SequenceEntry | PixelsEntry | EmbeddingEntry

# {modality: its entry} for every modality of the run, whether or not a sample has it; and under
# "mixture", int32 [b], the masking mixture (data set) that each sample follows.
Batch = dict[str, Entry | Int[AnyArray, "b"]]

# {record field: stacked values}: what tokenizers train on.
RawBatch = dict[str, AnyArray]


@flax.struct.dataclass
class InputTokens:
    """Visible tokens, all [b, n] ([n] of one sample, inside `vmap`).

    Attributes:
      modality: index into the model's tuple of modality specs.
      position: index in the grid; for sequences and embeddings see `dense_positions`.
      id: token id. Pixels: 0, their content is gathered by `position`. Embeddings: 1 + index of
        the vector in `TokenBatch.embeddings`, and 0 for the zero vector of a masked span.
      valid: False = the slot holds nothing.
      packed: known when compiled: the valid slots are the first ones of every sample. Attention
        then needs lengths instead of a mask.
    """

    modality: Int[Array, "*b n"]
    position: Int[Array, "*b n"]
    id: Int[Array, "*b n"]
    valid: Bool[Array, "*b n"]
    packed: bool = flax.struct.field(pytree_node=False, default=False)


@flax.struct.dataclass
class TargetTokens:
    """Tokens to predict, all [b, m] ([m] of one sample, inside `vmap`).

    Attributes:
      modality, position, valid: as for the inputs; sequence positions count target slots from 0.
      input_id: previous token for sequences (teacher forcing); ignored for grid and global
        targets, whose content is the learned mask token.
      id: what to predict.
      order: attention rank; query i sees key j of its own modality iff order_j <= order_i
        (equal inside a grid, increasing along a sequence).
      packed: known when compiled: the targets of a sample have one modality and one rank, and the
        valid ones come first. Attention among them then needs lengths instead of a mask.
    """

    modality: Int[Array, "*b m"]
    position: Int[Array, "*b m"]
    input_id: Int[Array, "*b m"]
    id: Int[Array, "*b m"]
    valid: Bool[Array, "*b m"]
    order: Int[Array, "*b m"]
    packed: bool = flax.struct.field(pytree_node=False, default=False)


@flax.struct.dataclass
class TokenBatch:
    """Inputs, targets and the float content that pixel and embedding inputs point into.

    Built in one module per purpose: random and fixed masks in `masking.sample`, steps of a sampler
    in `generate.state`; for a new behaviour build another TokenBatch. A loss that is
    computed in parts holds it with the parts as an axis before b.

    Attributes:
      inputs, targets: see `InputTokens`, `TargetTokens`.
      pixels: images by modality name, uint8 in 0..255, or float already normalized.
      embeddings: float vectors by modality name.
    """

    inputs: InputTokens
    targets: TargetTokens
    # _: modalities differ in size
    pixels: dict[str, UInt8[Array, "*b _h _w _c"] | Float[Array, "*b _h _w _c"]]
    embeddings: dict[str, Float[Array, "*b _l _e"]]


def batch_size(tokens: TokenBatch) -> int:
    """Number of samples of a TokenBatch."""
    return jax.tree.leaves(tokens.inputs)[0].shape[0]


def dense_positions(visible: Bool[AnyArray, "b l"]) -> Int[Array, "b l"]:
    """Position of each token of a sequence or list of vectors: the visible tokens before it.

        visible 0 1 1 0 1 -> 0 0 1 2 2

    Positions say how much is seen, not where it stood (docs/published.md#embeddings). Masks made by
    `masking` fill slots in this order, so that there the number of the slot is the position.
    """
    return jnp.cumsum(visible, axis=1, dtype=jnp.int32) - visible


def empty_targets(batch_size: int) -> TargetTokens:
    """No target at all, [b, 0]: for passes through the encoder alone."""
    nothing = jnp.zeros((batch_size, 0), jnp.int32)
    return TargetTokens(nothing, nothing, nothing, nothing, nothing == 1, nothing)
