"""Writing sequences token by token: encode once, cached decoder steps, a stop per row."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from fourm_jax.contracts import TokenBatch
from fourm_jax.generate import fill_spans
from fourm_jax.generate import state as states
from fourm_jax.generate.grids import Sampling
from fourm_jax.generate.state import Specs, State, Widths
from fourm_jax.modalities.vocabulary import PUBLISHED, TextVocabulary
from fourm_jax.ops import sampling
from fourm_jax.utils import hardware


@runtime_checkable
class SequenceDecoder(Protocol):
    """A trunk that predicts one token after the other."""

    def start(self, tokens: TokenBatch, num_steps: int) -> Any:
        """Encode the inputs and make room for `num_steps` decoder tokens; returns the memory."""
        ...

    def step(
        self, memory: Any, token: Int[Array, "g"], index: Int[Array, ""]
    ) -> tuple[Float[Array, "g vocab"], Any]:
        """Read token number `index` of every row; logits (float32) of the next, new memory."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceStage:
    """What is static about generating one sequence; one compiled program per value.

    Attributes:
      target: modality name.
      max_new: most tokens to generate, sentinels included.
      length: slots of the merged sequence.
      end_id: token that ends a row, instead of the sentinel after its last one.
      hidden_conditions, leave_trace, input_widths: see `grids.GridStage`.
    """

    target: str
    max_new: int
    length: int
    end_id: int | None = None
    input_widths: Widths = ()
    hidden_conditions: tuple[tuple[str, ...], ...] = ((),)
    leave_trace: bool = True
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    vocabulary: TextVocabulary = PUBLISHED


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

    The decoder starts with the first sentinel of the row's input and ends with the one after the
    last, or with [EOS], row by row; a row without sentinels is complete and stays as it is. With
    `Sampling.as_published` rows go on until all of them have met the end sentinel, and [EOS] ends
    nothing.
    """
    ids, known = state.ids[stage.target], state.known[stage.target]
    first, end, complete = _borders(ids, known, stage.vocabulary)
    memory = decoder.start(_inputs(state, first, stage, specs), stage.max_new)
    end = end if stage.end_id is None else jnp.full_like(end, stage.end_id)
    next_token = functools.partial(_next_token, keys, temperature, weights, stage, decoder)
    generated, generated_known = _write_until(next_token, memory, first, end, complete, stage)
    merged, merged_known = fill_spans.merge_spans(
        ids, known, generated, generated_known, length=stage.length, vocabulary=stage.vocabulary
    )
    return state.with_tokens(stage.target, merged, merged_known)


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
    asked, packed = [unread] * len(branches), hardware.platform() != "cpu"  # as `grids` does
    return states.token_batch(branches, asked, specs, stage.input_widths, packed=packed)


def _next_token(
    keys: Key[Array, "b"],
    temperature: Float[Array, ""],
    weights: Float[Array, "w"],
    stage: SequenceStage,
    decoder: SequenceDecoder,
    memory: Any,
    token: Int[Array, "b"],
    at: Int[Array, ""],
) -> tuple[Int[Array, "b"], Any]:
    """Read token number `at` of every row and draw the one after it; also the new memory."""
    num_branches = len(stage.hidden_conditions)
    logits, memory = decoder.step(memory, jnp.tile(token, num_branches), at)
    logits = logits.reshape(num_branches, len(token), 1, -1)
    drawn, _ = sampling.sample(
        sampling.uniforms(jax.vmap(lambda key: jax.random.fold_in(key, at))(keys), 1),
        sampling.guide(logits, weights),
        temperature,
        top_k=stage.sampling.top_k,
        top_p=stage.sampling.top_p,
        draw=stage.sampling.draw,
        as_published=stage.sampling.as_published,
    )
    return drawn[:, 0], memory


def _write_until(
    next_token: Callable[[Any, Int[Array, "b"], Int[Array, ""]], tuple[Int[Array, "b"], Any]],
    memory: Any,
    first: Int[Array, "b"],
    end: Int[Array, "b"],
    complete: Bool[Array, "b"],
    stage: SequenceStage,
) -> tuple[Int[Array, "b t"], Bool[Array, "b t"]]:
    """Tokens [b, max_new + 1] from `first` on until every row has ended, and which of them count.

    Rows that are `complete` write nothing.
    """
    published = stage.sampling.as_published
    tokens = jnp.zeros((len(first), stage.max_new + 1), jnp.int32).at[:, 0].set(first)

    def unfinished(carry):
        _, _, _, done, at = carry
        return (at < stage.max_new) & ~done.all()

    def one_token(carry):
        tokens, lengths, memory, done, at = carry
        token = jax.lax.dynamic_index_in_dim(tokens, at, axis=1, keepdims=False)
        drawn, memory = next_token(memory, token, at)
        active = ~complete if published else ~done
        drawn = jnp.where(active, drawn, stage.vocabulary.pad_id)
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, drawn, at + 1, axis=1)
        ends = drawn == end
        if not published:
            ends |= drawn == stage.vocabulary.eos_id
        return tokens, lengths + active, memory, done | ends, at + 1

    lengths = jnp.where(complete, 0, 1)
    carry = (tokens, lengths, memory, complete, jnp.zeros((), jnp.int32))
    tokens, lengths, *_ = jax.lax.while_loop(unfinished, one_token, carry)
    return tokens, jnp.arange(tokens.shape[1]) < lengths[:, None]


def _borders(
    ids: Int[Array, "b l"], known: Bool[Array, "b l"], vocabulary: TextVocabulary
) -> tuple[Int[Array, "b"], Int[Array, "b"], Bool[Array, "b"]]:
    """First sentinel of each row, the one after its last, and whether there is none."""
    holes = fill_spans.is_sentinel(ids, vocabulary) & known
    first = jnp.take_along_axis(ids, jnp.argmax(holes, axis=1)[:, None], axis=1)[:, 0]
    complete = ~holes.any(axis=1)
    first = jnp.where(complete, vocabulary.sentinel_id(1), first)
    return first, jnp.max(jnp.where(holes, ids, 0), axis=1) + 1, complete
