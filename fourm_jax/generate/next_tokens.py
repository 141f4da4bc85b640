"""Which tokens may come next in a text: what its form can read (`modalities.grammar`)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from fourm_jax.generate import fill_spans
from fourm_jax.modalities import grammar as kinds
from fourm_jax.modalities import serializers
from fourm_jax.modalities.grammar import Grammar
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import TextVocabulary

Ranges = tuple[tuple[int, int], ...]  # of ids: first, and the one behind the last

# What a token may follow, as a number: the kinds of `grammar.TOKENS` in their order, then these.
_BEGIN = len(kinds.TOKENS)  # of the text
_ANYTHING = _BEGIN + 1
_TILE = 128  # what products and draws have blocks of
UNCOUNTED = -1  # in `still_due`


def grammar_of(spec: ModalitySpec, vocabulary: TextVocabulary) -> Grammar | None:
    """The grammar of a modality's texts; None where any token may follow any other.

    So it is where the form says nothing, where ids are no text (no tokenizer is named), and where
    the vocabulary lacks a kind of tokens that the form needs.
    """
    grammar = serializers.grammar(spec.text_form) if spec.tokenizer else None
    if grammar is None:
        return None
    ranges = _by_kind(grammar, vocabulary, spec.vocab_size)
    return grammar if all(start < stop for start, stop in ranges.values()) else None


def drawable(grammar: Grammar, vocabulary: TextVocabulary, vocab_size: int) -> Ranges:
    """Ids of all tokens that texts of this grammar have, with those that close a hole.

    Ascending and apart, from and to multiples of 128 or the end, so that some are more than that.
    """
    closing = [
        (vocabulary.eos_id, vocabulary.eos_id + 1),
        (vocabulary.first_sentinel_id, vocabulary.first_coordinate_id),
    ]
    merged: list[tuple[int, int]] = []
    for start, stop in sorted([*closing, *_by_kind(grammar, vocabulary, vocab_size).values()]):
        start, stop = start // _TILE * _TILE, min(-(-stop // _TILE) * _TILE, vocab_size)
        if merged and start <= merged[-1][1]:
            start, stop = merged[-1][0], max(merged.pop()[1], stop)
        merged.append((start, stop))
    return tuple(merged)


def still_due(
    previous: Int[Array, "b"],
    due: Int[Array, "b"],
    *,
    grammar: Grammar | None,
    vocabulary: TextVocabulary,
) -> Int[Array, "b"]:
    """How many tokens a text still owes after `previous` (`Grammar.counted`).

    Args:
      previous: see `may_follow`.
      due: before that token; `UNCOUNTED` where a hole hides how many there were.
    """
    if grammar is None or grammar.counted is None:
        return due
    axis, kind, each = grammar.counted
    counting, counted = kinds.TOKENS.index(axis), kinds.TOKENS.index(kind)
    context = _contexts(previous, vocabulary)
    due = jnp.where((context == counted) & (due > 0), due - 1, due)
    announced = each * (previous - vocabulary.coordinate_id(counting, 0))
    return jnp.where(context == counting, announced, due)


def keys_in(
    ids: Int[Array, "b l"], *, grammar: Grammar | None, vocabulary: TextVocabulary
) -> Bool[Array, "b k"]:
    """Which keys are among the tokens of a text (`Grammar.keyed`); k is 0 without such a rule."""
    if grammar is None or grammar.keyed is None:
        return jnp.zeros((len(ids), 0), bool)
    axis, _, sizes = grammar.keyed
    keys = vocabulary.coordinate_id(kinds.TOKENS.index(axis), 0) + np.arange(len(sizes))
    return (ids[:, :, None] == keys).any(axis=1)


def may_follow(
    previous: Int[Array, "b"],
    closing: Int[Array, "b"],
    due: Int[Array, "b"],
    used: Bool[Array, "b k"],
    num_ids: int,
    *,
    grammar: Grammar | None,
    vocabulary: TextVocabulary,
) -> Bool[Array, "b v"]:
    """Mask of the ids that may follow a token.

    Of the tokens that close a hole only `closing` may: a sentinel always, as words stand behind it,
    and [EOS] where the grammar lets a text end. Without grammar all others may.

    Args:
      previous: the token, or what stands before the hole that it opens, see
        `fill_spans.tokens_before_holes`. After one that the grammar does not know, anything may
        come that its texts have.
      closing: see `fill_spans.closing_tokens`.
      due: see `still_due`.
      used: which keys the text has, see `keys_in`.
      num_ids: size of the vocabulary.
    """
    ids = jnp.arange(num_ids)
    closes = ids == closing[:, None]
    if grammar is None:
        of_holes = fill_spans.is_sentinel(ids, vocabulary) | (ids == vocabulary.eos_id)
        return ~of_holes | closes
    ranges = _by_kind(grammar, vocabulary, num_ids)
    allowed = _kinds_that_follow(_contexts(previous, vocabulary), due, grammar)
    closes &= allowed[:, -1:] | (closing != vocabulary.eos_id)[:, None]
    some = {} if grammar.keyed is None else _of_keys(previous, used, ranges, grammar, vocabulary)
    return _content(allowed, some, ranges, num_ids) | closes


def _kinds_that_follow(
    context: Int[Array, "b"], due: Int[Array, "b"], grammar: Grammar
) -> Bool[Array, "b kinds"]:
    """Mask of the kinds of a grammar, and last of the end, that may follow."""
    followers = (*grammar.kinds, kinds.END)
    table = jnp.asarray(_table(grammar, followers))
    if grammar.counted is None:
        return table[context]
    kind = grammar.counted[1]
    is_counted = np.array([one == kind for one in followers])
    # What may follow once all are there is what may follow the last one of them.
    at_end = table[kinds.TOKENS.index(kind)] & ~is_counted
    owed = due[:, None]
    return jnp.where(owed > 0, is_counted, jnp.where(owed == 0, at_end, table[context]))


def _of_keys(
    previous: Int[Array, "b"],
    used: Bool[Array, "b k"],
    ranges: dict[str, tuple[int, int]],
    grammar: Grammar,
    vocabulary: TextVocabulary,
) -> dict[str, Bool[Array, "b n"]]:
    """Masks of the keys that a text does not have yet, and of the values of the key before."""
    assert grammar.keyed is not None
    axis, other, sizes_of = grammar.keyed
    sizes = np.array(sizes_of)
    (first, stop), (first_value, last_value) = ranges[axis], ranges[other]
    place = previous - first
    size = jnp.asarray(sizes)[jnp.clip(place, 0, len(sizes) - 1)]
    # A key that somebody has written and that there is not may have any value.
    is_key = (place >= 0) & (place < stop - first) & (size > 0)
    size = jnp.where(is_key, size, last_value - first_value)
    values = jnp.arange(last_value - first_value) < size[:, None]
    return {axis: (~used & (sizes > 0))[:, : stop - first], other: values}


def _content(
    allowed: Bool[Array, "b kinds"],
    some: dict[str, Bool[Array, "b n"]],
    ranges: dict[str, tuple[int, int]],
    num_ids: int,
) -> Bool[Array, "b v"]:
    """Mask of the coordinates and words of these kinds; of those in `some` only what it allows."""
    parts, end = [], 0
    for number, (kind, ids) in enumerate(ranges.items()):  # ascending, as `grammar.TOKENS`
        start, stop = ids
        parts.append(jnp.zeros((len(allowed), start - end), bool))
        part = jnp.broadcast_to(allowed[:, number, None], (len(allowed), stop - start))
        parts.append(part & some[kind] if kind in some else part)
        end = stop
    parts.append(jnp.zeros((len(allowed), num_ids - end), bool))
    return jnp.concatenate(parts, axis=1)


def _table(grammar: Grammar, followers: tuple[str, ...]) -> Bool[np.ndarray, "contexts kinds"]:
    """Which of these kinds may follow in every context."""
    rows = [grammar.after(kind) for kind in (*kinds.TOKENS, kinds.BEGIN)]
    rows.append((*grammar.kinds, kinds.END))
    return np.array([[kind in row for kind in followers] for row in rows])


def _contexts(previous: Int[Array, "b"], vocabulary: TextVocabulary) -> Int[Array, "b"]:
    """What each token, or `fill_spans.NO_TOKEN`, is as a context."""
    word = kinds.TOKENS.index(kinds.WORD)
    axis = (previous - vocabulary.first_coordinate_id) // vocabulary.num_bins
    context = jnp.where(previous >= vocabulary.num_reserved, word, axis)
    context = jnp.where(previous < vocabulary.first_coordinate_id, _ANYTHING, context)
    context = jnp.where(previous == vocabulary.unk_id, word, context)
    return jnp.where(previous == fill_spans.NO_TOKEN, _BEGIN, context)


def _by_kind(
    grammar: Grammar, vocabulary: TextVocabulary, num_ids: int
) -> dict[str, tuple[int, int]]:
    """Ids of the kinds of a grammar, in the order of `grammar.TOKENS`, as far as there are some."""
    ranges = {kinds.WORD: (vocabulary.num_reserved, num_ids)}
    every, some = range(vocabulary.num_bins), dict(grammar.bins)
    for number, axis in enumerate(kinds.AXES):
        first, bins = vocabulary.coordinate_id(number, 0), some.get(axis, every)
        ranges[axis] = first + bins.start, min(first + min(bins.stop, every.stop), num_ids)
    return {kind: ranges[kind] for kind in grammar.kinds}
