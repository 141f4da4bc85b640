"""Writing sequences token by token: encode once, cached decoder steps, a stop per row."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from fourm_jax.contracts import TokenBatch
from fourm_jax.generate import fill_spans
from fourm_jax.generate import state as states
from fourm_jax.generate.grids import Sampling
from fourm_jax.generate.state import Specs, State
from fourm_jax.modalities.vocabulary import PUBLISHED, TextVocabulary
from fourm_jax.ops import sampling


@runtime_checkable
class SequenceDecoder(Protocol):
    """A trunk that predicts one token after the other."""

    def start(self, tokens: TokenBatch, num_steps: int) -> Any:
        """Encode the inputs and make room for `num_steps` decoder tokens; returns the memory."""
        ...

    def step(
        self, memory: Any, token: Int[Array, "v"], index: Int[Array, ""]
    ) -> tuple[Float[Array, "v vocab"], Any]:
        """Read token number `index` of every row; logits (float32) of the next, new memory."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Writing:
    """What is static about writing one sequence; one compiled program per value.

    Attributes:
      target: modality name.
      max_new: most tokens to generate, sentinels included.
      length: slots of the merged sequence.
      end_id: token that ends a row, instead of the sentinel after its last one.
      hidden, leave_trace: see `parallel.Passes`.
    """

    target: str
    max_new: int
    length: int
    end_id: int | None = None
    hidden: tuple[tuple[str, ...], ...] = ((),)
    leave_trace: bool = True
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    vocabulary: TextVocabulary = PUBLISHED


def write_sequence(
    state: State,
    keys: Key[Array, "b"],
    temperature: Float[Array, ""],
    weights: Float[Array, "views-1"],
    *,
    writing: Writing,
    specs: Specs,
    decoder: SequenceDecoder,
) -> State:
    """Generate what the sentinels of one sequence stand for and put it in their places.

    The decoder starts with the first sentinel of the row's input and ends with the one after the
    last, or with [EOS], row by row; a row without sentinels is complete and stays as it is. With
    `Sampling.as_published` rows go on until all of them have met the end sentinel, and [EOS] ends
    nothing.
    """
    generated, written = _generate(
        state, keys, temperature, weights, writing=writing, specs=specs, decoder=decoder
    )
    ids, known = state.ids[writing.target], state.known[writing.target]
    merged, merged_known = fill_spans.merge_spans(
        ids, known, generated, written, length=writing.length, vocabulary=writing.vocabulary
    )
    return state.with_tokens(writing.target, merged, merged_known)


def _generate(state, keys, temperature, weights, *, writing, specs, decoder):
    """Decoder tokens [b, max_new + 1], starting with a sentinel, and which of them count."""
    as_published = writing.sampling.as_published
    first, end, nothing = _borders(
        state.ids[writing.target], state.known[writing.target], writing.vocabulary
    )
    end = end if writing.end_id is None else writing.end_id
    views = [
        states.hide(
            state,
            hidden,
            specs=specs,
            leave_trace=writing.leave_trace,
            vocabulary=writing.vocabulary,
        )
        for hidden in writing.hidden
    ]
    index = states.index_of(specs, writing.target)
    unread = states.sequence_targets(index, first[:, None], jnp.ones_like(first))
    memory = decoder.start(states.token_batch(views, [unread] * len(views), specs), writing.max_new)
    tokens = jnp.zeros((len(first), writing.max_new + 1), jnp.int32).at[:, 0].set(first)
    lengths = jnp.where(nothing, 0, 1)

    def unfinished(carry):
        _, _, _, done, at = carry
        return (at < writing.max_new) & ~done.all()

    def one_token(carry):
        tokens, lengths, memory, done, at = carry
        token = jax.lax.dynamic_index_in_dim(tokens, at, axis=1, keepdims=False)
        logits, memory = decoder.step(memory, jnp.tile(token, len(views)), at)
        logits = logits.reshape(len(views), len(first), 1, -1)
        drawn, _ = sampling.sample(
            jax.vmap(lambda key: jax.random.fold_in(key, at))(keys),
            sampling.guide(logits, weights),
            temperature,
            top_k=writing.sampling.top_k,
            top_p=writing.sampling.top_p,
            draw=writing.sampling.draw,
            as_published=as_published,
        )
        drawn = drawn[:, 0]
        active = ~nothing if as_published else ~done
        drawn = jnp.where(active, drawn, writing.vocabulary.pad_id)
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, drawn, at + 1, axis=1)
        ends = drawn == end
        if not as_published:
            ends |= drawn == writing.vocabulary.eos_id
        return tokens, lengths + active, memory, done | ends, at + 1

    carry = (tokens, lengths, memory, nothing, jnp.zeros((), jnp.int32))
    tokens, lengths, *_ = jax.lax.while_loop(unfinished, one_token, carry)
    return tokens, jnp.arange(tokens.shape[1]) < lengths[:, None]


def _borders(
    ids: Int[Array, "b l"], known: Bool[Array, "b l"], vocabulary: TextVocabulary
) -> tuple[Int[Array, "b"], Int[Array, "b"], Bool[Array, "b"]]:
    """First sentinel of each row, the one after its last, and whether there is none."""
    holes = fill_spans.is_sentinel(ids, vocabulary) & known
    first = jnp.take_along_axis(ids, jnp.argmax(holes, axis=1)[:, None], axis=1)[:, 0]
    nothing = ~holes.any(axis=1)
    first = jnp.where(nothing, vocabulary.sentinel_id(1), first)
    return first, jnp.max(jnp.where(holes, ids, 0), axis=1) + 1, nothing
