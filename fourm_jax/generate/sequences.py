"""Writing sequences token by token: encode once, cached decoder steps, a stop per row."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from fourm_jax.contracts import TokenBatch
from fourm_jax.generate import fill_spans, next_tokens
from fourm_jax.generate import state as states
from fourm_jax.generate.grids import Sampling
from fourm_jax.generate.next_tokens import Ranges
from fourm_jax.generate.state import Specs, State, Widths
from fourm_jax.modalities.grammar import Grammar
from fourm_jax.modalities.vocabulary import PUBLISHED, TextVocabulary
from fourm_jax.ops import sampling


@runtime_checkable
class SequenceDecoder(Protocol):
    """A trunk that predicts one token after the other."""

    def start(self, tokens: TokenBatch, num_steps: int) -> Any:
        """Encode the inputs and make room for `num_steps` decoder tokens; returns the memory."""
        ...

    def step(
        self, memory: Any, token: Int[Array, "g"], index: Int[Array, ""]
    ) -> tuple[Float[Array, "g vocab"], Any]:
        """Read token number `index` of every row; logits (float32) of the next, new memory.

        Those of tokens that the modality's texts cannot have (`SequenceStage.grammar`) may be any
        numbers.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceStage:
    """What is static about generating one sequence; one compiled program per value.

    Attributes:
      target: modality name.
      max_new: most tokens to generate, sentinels included.
      length: slots of the merged sequence.
      end_id: token that ends a row, instead of the sentinel after its last one.
      grammar: of the texts (`next_tokens.grammar_of`); None: any token may follow any other.
      hidden_conditions, leave_trace, input_widths: see `grids.GridStage`.
    """

    target: str
    max_new: int
    length: int
    end_id: int | None = None
    grammar: Grammar | None = None
    input_widths: Widths = ()
    hidden_conditions: tuple[tuple[str, ...], ...] = ((),)
    leave_trace: bool = True
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    vocabulary: TextVocabulary = PUBLISHED


def drawable(stage: SequenceStage, specs: Specs) -> Ranges:
    """Ids of which some may be drawn (`next_tokens.drawable`); without grammar all of them."""
    size = specs[states.index_of(specs, stage.target)].vocab_size
    if stage.grammar is None or stage.end_id is not None:
        return ((0, size),)
    return next_tokens.drawable(stage.grammar, stage.vocabulary, size)


def write_sequence(
    state: State,
    keys: Key[Array, "b"],
    temperature: Float[Array, ""],
    weights: Float[Array, "w"],
    *,
    stage: SequenceStage,
    specs: Specs,
    decoder: SequenceDecoder,
) -> State:
    """Generate what the sentinels of one sequence stand for and put it in their places.

    The decoder starts with the first sentinel of the row's input and closes one hole after the
    other, row by row, each with the token that may follow it (`fill_spans.closing_tokens`); a row
    without sentinels is complete and stays as it is. Other tokens are those that the grammar lets
    follow (`next_tokens.may_follow`). With `Sampling.as_published` any token may follow any other,
    rows go on until all of them have met the sentinel after their last one, and [EOS] ends nothing.
    """
    ids, known = state.ids[stage.target], state.known[stage.target]
    holes = _holes(ids, known, stage)
    started = decoder.start(_inputs(state, holes.first, stage, specs), stage.max_new)
    words = jnp.where(known, ids, stage.vocabulary.pad_id)
    used = next_tokens.keys_in(words, grammar=stage.grammar, vocabulary=stage.vocabulary)
    memory = _Memory(started, jnp.full_like(holes.first, next_tokens.UNCOUNTED), used)
    next_token = functools.partial(_next_token, keys, temperature, weights, stage, decoder)
    generated, generated_known = _write_until(next_token, memory, holes, stage)
    merged, merged_known = fill_spans.merge_spans(
        ids, known, generated, generated_known, length=stage.length, vocabulary=stage.vocabulary
    )
    return state.with_tokens(stage.target, merged, merged_known)


class _Holes(NamedTuple):
    """The holes of a text.

    Attributes:
      first: the sentinel that the decoder starts with; [S_1] where there is none.
      closing: see `fill_spans.closing_tokens`; rows without holes write nothing.
      before: see `fill_spans.tokens_before_holes`.
    """

    first: Int[Array, "b"]
    closing: Int[Array, "b h"]
    before: Int[Array, "b h"]


class _Memory(NamedTuple):
    """What is kept between tokens: that of the decoder, what texts owe
    (`next_tokens.still_due`), and which keys they have, also behind a hole (`keys_in`)."""

    decoder: Any
    due: Int[Array, "b"]
    used: Bool[Array, "b k"]


def _inputs(state: State, first: Int[Array, "b"], stage: SequenceStage, specs: Specs) -> TokenBatch:
    """What every branch of guidance sees; the targets are not read."""
    branches = [
        states.hide(
            states.in_branch(state, number),
            hidden,
            specs=specs,
            leave_trace=stage.leave_trace,
            vocabulary=stage.vocabulary,
        )
        for number, hidden in enumerate(stage.hidden_conditions)
    ]
    index = states.index_of(specs, stage.target)
    unread = states.sequence_targets(index, first[:, None], jnp.ones_like(first))
    asked = [unread] * len(branches)
    return states.token_batch(branches, asked, specs, stage.input_widths)


def _next_token(
    keys: Key[Array, "b"],
    temperature: Float[Array, ""],
    weights: Float[Array, "w"],
    stage: SequenceStage,
    decoder: SequenceDecoder,
    memory: _Memory,
    token: Int[Array, "b"],
    at: Int[Array, ""],
    closing: Int[Array, "b"],
    before: Int[Array, "b"],
) -> tuple[Int[Array, "b"], _Memory]:
    """Read token number `at` of every row and draw the one after it; also the new memory.

    Args:
      closing, before: of the hole that is open, see `_Holes`.
    """
    num_branches = len(stage.hidden_conditions)
    logits, kept = decoder.step(memory.decoder, jnp.tile(token, num_branches), at)
    logits = sampling.guide(logits.reshape(num_branches, len(token), 1, -1), weights)
    due, used = memory.due, memory.used
    if not stage.sampling.as_published:
        rules: dict[str, Any] = {"grammar": stage.grammar, "vocabulary": stage.vocabulary}
        opens = fill_spans.is_sentinel(token, stage.vocabulary)
        previous = jnp.where(opens, before, token)
        due = jnp.where(opens, next_tokens.UNCOUNTED, due)
        due = next_tokens.still_due(previous, due, **rules)
        used |= next_tokens.keys_in(token[:, None], **rules)
        allowed = next_tokens.may_follow(previous, closing, due, used, logits.shape[-1], **rules)
        logits = jnp.where(allowed[:, None], logits, -jnp.inf)
    drawn, _ = sampling.sample(
        sampling.uniforms(jax.vmap(lambda key: jax.random.fold_in(key, at))(keys), 1),
        logits,
        temperature,
        top_k=stage.sampling.top_k,
        top_p=stage.sampling.top_p,
        draw=stage.sampling.draw,
        as_published=stage.sampling.as_published,
    )
    return drawn[:, 0], _Memory(kept, due, used)


def _write_until(
    next_token: Callable[..., tuple[Int[Array, "b"], _Memory]],
    memory: _Memory,
    holes: _Holes,
    stage: SequenceStage,
) -> tuple[Int[Array, "b t"], Bool[Array, "b t"]]:
    """Tokens [b, max_new + 1] from the first sentinel on until every row has ended, and which of
    them count.

    Args:
      next_token: see `_next_token`; takes memory, token, its number, what may close the hole and
        what stands before it.
    """
    published = stage.sampling.as_published
    first, closing, before = holes
    num_holes = (closing != fill_spans.NO_HOLE).sum(axis=1)
    last = jnp.take_along_axis(closing, jnp.maximum(num_holes - 1, 0)[:, None], axis=1)[:, 0]
    tokens = jnp.zeros((len(first), stage.max_new + 1), jnp.int32).at[:, 0].set(first)

    def unfinished(carry):
        *_, done, at = carry
        return (at < stage.max_new) & ~done.all()

    def one_token(carry):
        tokens, lengths, closed, memory, done, at = carry
        token = jax.lax.dynamic_index_in_dim(tokens, at, axis=1, keepdims=False)
        closes, opens = (
            jnp.take_along_axis(part, closed[:, None], axis=1, mode="clip")[:, 0]
            for part in (closing, before)
        )
        drawn, memory = next_token(memory, token, at, closes, opens)
        active = num_holes > 0 if published else ~done
        drawn = jnp.where(active, drawn, stage.vocabulary.pad_id)
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, drawn, at + 1, axis=1)
        closed += drawn == closes
        return tokens, lengths + active, closed, memory, done | (drawn == last), at + 1

    complete = num_holes == 0
    lengths, none_closed = jnp.where(complete, 0, 1), jnp.zeros_like(num_holes)
    carry = (tokens, lengths, none_closed, memory, complete, jnp.zeros((), jnp.int32))
    tokens, lengths, *_ = jax.lax.while_loop(unfinished, one_token, carry)
    return tokens, jnp.arange(tokens.shape[1]) < lengths[:, None]


def _holes(ids: Int[Array, "b l"], known: Bool[Array, "b l"], stage: SequenceStage) -> _Holes:
    """The holes of every row."""
    vocabulary = stage.vocabulary
    holes = fill_spans.is_sentinel(ids, vocabulary) & known
    first = jnp.take_along_axis(ids, jnp.argmax(holes, axis=1)[:, None], axis=1)[:, 0]
    first = jnp.where(holes.any(axis=1), first, vocabulary.sentinel_id(1))
    closing = fill_spans.closing_tokens(ids, known, vocabulary, stage.sampling.as_published)
    if stage.end_id is not None:
        is_last = jnp.arange(closing.shape[1]) == holes.sum(axis=1, keepdims=True) - 1
        closing = jnp.where(is_last, stage.end_id, closing)
    return _Holes(first, closing, fill_spans.tokens_before_holes(ids, known, vocabulary))
