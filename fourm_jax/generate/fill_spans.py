"""Putting generated spans back where their sentinels stand in a masked text."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from fourm_jax.modalities.vocabulary import TextVocabulary

NO_HOLE = -1  # in `closing_tokens`
NO_TOKEN = -1  # in `tokens_before_holes`


def is_sentinel(ids: Int[Array, "*n"], vocabulary: TextVocabulary) -> Bool[Array, "*n"]:
    """Mask of the sentinel ids."""
    first = vocabulary.first_sentinel_id
    return (ids >= first) & (ids < first + vocabulary.num_sentinels)


def closing_tokens(
    ids: Int[Array, "b n"],
    known: Bool[Array, "b n"],
    vocabulary: TextVocabulary,
    as_published: bool = False,
) -> Int[Array, "b n"]:
    """The token that closes each hole of a text, in the order of the holes, then `NO_HOLE`.

    A hole is closed by the sentinel of the next one, the last one by a sentinel that no other has.
    A last hole with nothing behind it ends with the text: [EOS] closes it. Models, small ones above
    all, draw a sentinel there too, as of a hole within a text, and leave half a box; it is always
    the one `as_published`.

        [S_1] 300 [S_2] 301 -> [S_2] [S_3];  300 [S_1] -> [EOS]

    Args:
      ids, known: as of `merge_spans`.
    """
    holes = is_sentinel(ids, vocabulary) & known
    num_holes = holes.sum(axis=1, keepdims=True)
    rank = jnp.cumsum(holes, axis=1)
    # The i-th hole gives its id to the one before it; the first, and what is no hole, to nobody.
    place = jnp.where(holes & (rank > 1), rank - 2, ids.shape[1])
    rows = jnp.arange(len(ids))[:, None]
    closing = jnp.full_like(ids, NO_HOLE).at[rows, place].set(ids, mode="drop")
    last = jnp.where(holes, ids, 0).max(axis=1, keepdims=True) + 1
    if not as_published:
        behind = known & (jnp.cumsum(holes, axis=1) == num_holes) & ~holes
        last = jnp.where(behind.any(axis=1, keepdims=True), last, vocabulary.eos_id)
    return jnp.where(jnp.arange(ids.shape[1]) == num_holes - 1, last, closing)


def tokens_before_holes(
    ids: Int[Array, "b n"], known: Bool[Array, "b n"], vocabulary: TextVocabulary
) -> Int[Array, "b n"]:
    """The token before each hole of a text, in the order of the holes; `NO_TOKEN` where the text
    begins with it, and where there is no hole.

        [S_1] 300 [S_2] 301 -> NO_TOKEN 300

    Args:
      ids, known: as of `merge_spans`.
    """
    holes = is_sentinel(ids, vocabulary) & known
    slots = jnp.arange(ids.shape[1])
    last_known = jax.lax.cummax(jnp.where(known, slots, -1), axis=1)
    before = jnp.pad(last_known[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    tokens = jnp.where(before >= 0, jnp.take_along_axis(ids, before, axis=1), NO_TOKEN)
    place = jnp.where(holes, jnp.cumsum(holes, axis=1) - 1, ids.shape[1])
    rows = jnp.arange(len(ids))[:, None]
    return jnp.full_like(ids, NO_TOKEN).at[rows, place].set(tokens, mode="drop")


def merge_spans(
    ids: Int[Array, "b n"],
    known: Bool[Array, "b n"],
    generated: Int[Array, "b m"],
    generated_known: Bool[Array, "b m"],
    *,
    length: int,
    vocabulary: TextVocabulary,
) -> tuple[Int[Array, "b length"], Bool[Array, "b length"]]:
    """Replace every sentinel of the input by the tokens that follow it in the output.

    A sentinel that the output never names becomes nothing, spans of foreign sentinels are dropped.

        ids [S_1] 300 [S_2] 301, generated [S_1] 7 8 [S_2] 9 [S_3] -> 7 8 300 9 301

    Args:
      ids, known: the input text and which of its slots hold a token.
      generated, generated_known: the output, starting with a sentinel, and how far it goes.
      length: size of the result; what does not fit is cut off.

    Returns:
      The merged ids (0 where empty) and the mask of the slots that hold a token.
    """
    merge = functools.partial(_merge_row, length=length, vocabulary=vocabulary)
    return jax.vmap(merge)(ids, known, generated, generated_known)


def _merge_row(
    ids: Int[Array, "n"],
    known: Bool[Array, "n"],
    generated: Int[Array, "m"],
    generated_known: Bool[Array, "m"],
    *,
    length: int,
    vocabulary: TextVocabulary,
) -> tuple[Int[Array, "length"], Bool[Array, "length"]]:
    opens = is_sentinel(generated, vocabulary) & generated_known
    # Sentinel that each generated token belongs to: the last one at or before it (-1: none yet).
    last_open = jax.lax.cummax(jnp.where(opens, jnp.arange(len(generated)), -1))
    span = jnp.where(last_open >= 0, generated[last_open], -1)
    content = generated_known & ~opens

    holes = is_sentinel(ids, vocabulary) & known
    belongs = holes[:, None] & content[None, :] & (ids[:, None] == span[None, :])  # [n, m]
    rank = jnp.cumsum(belongs, axis=1) - 1
    width = jnp.where(holes, belongs.sum(axis=1), known)
    start = jnp.cumsum(width) - width

    merged = jnp.zeros(length, ids.dtype)
    plain = jnp.where(known & ~holes, start, length)
    merged = merged.at[plain].set(ids, mode="drop")
    filled = jnp.where(belongs, start[:, None] + rank, length)
    merged = merged.at[filled].set(jnp.broadcast_to(generated, belongs.shape), mode="drop")
    return merged, jnp.arange(length) < width.sum()
