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


def may_follow(
    previous: Int[Array, "b"],
    closing: Int[Array, "b"],
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
      num_ids: size of the vocabulary.
    """
    ids = jnp.arange(num_ids)
    closes = ids == closing[:, None]
    if grammar is None:
        of_holes = fill_spans.is_sentinel(ids, vocabulary) | (ids == vocabulary.eos_id)
        return ~of_holes | closes
    context = _contexts(previous, vocabulary)
    ends = jnp.asarray(_table(grammar, (kinds.END,)))[context]
    closes &= ends | (closing != vocabulary.eos_id)[:, None]
    return _content(context, num_ids, grammar, vocabulary) | closes


def _content(
    context: Int[Array, "b"], num_ids: int, grammar: Grammar, vocabulary: TextVocabulary
) -> Bool[Array, "b v"]:
    """Mask of the coordinates and words that may follow."""
    ranges = _by_kind(grammar, vocabulary, num_ids)
    allowed = jnp.asarray(_table(grammar, tuple(ranges)))[context]  # [b, kinds of the grammar]
    parts, end = [], 0
    for number, (start, stop) in enumerate(ranges.values()):  # ascending, as `grammar.TOKENS`
        parts.append(jnp.zeros((len(context), start - end), bool))
        parts.append(jnp.broadcast_to(allowed[:, number, None], (len(context), stop - start)))
        end = stop
    parts.append(jnp.zeros((len(context), num_ids - end), bool))
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
    num_bins = dict(grammar.num_bins)
    for number, axis in enumerate(kinds.AXES):
        start = vocabulary.coordinate_id(number, 0)
        count = min(num_bins.get(axis, vocabulary.num_bins), vocabulary.num_bins)
        ranges[axis] = start, min(start + count, num_ids)
    return {kind: ranges[kind] for kind in grammar.kinds}
