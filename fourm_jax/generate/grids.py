"""MaskGIT and ROAR: write the tokens of a grid in a few passes, each over many positions."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from fourm_jax.contracts import TargetTokens, TokenBatch
from fourm_jax.generate import state as states
from fourm_jax.generate.state import Specs, State
from fourm_jax.modalities.vocabulary import PUBLISHED, TextVocabulary
from fourm_jax.ops import sampling

# [v, n] inputs and [v, m] targets of one modality -> [v, m, V] float32, v = views · rows.
TokensToLogits = Callable[[TokenBatch], Float[Array, "v m vocab"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn; see `ops.sampling.sample`."""

    top_k: int | float = 0
    top_p: float = 0.0
    draw: sampling.Draw = sampling.draw_categorical
    as_published: bool = False

    def __post_init__(self):
        sampling.check_filters(self.top_k, self.top_p)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passes:
    """What is static about writing one grid; one compiled program per value.

    Attributes:
      target: modality name.
      scheme: "maskgit" or "roar".
      num_slots: target slots per pass: all positions for MaskGIT, the largest step for ROAR.
      hidden: per view of the samples the conditions it does not see; the first view is the
        unconditional one of guidance, or the only one.
      leave_trace: whether hidden conditions leave something, see `state.hide`.
      forget: the published multi-guided ROAR: views other than the first never see what is being
        written and always predict the positions of the first step (docs/published.md#defects).
    """

    target: str
    scheme: Literal["maskgit", "roar"]
    num_slots: int
    hidden: tuple[tuple[str, ...], ...] = ((),)
    leave_trace: bool = True
    forget: bool = False
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    vocabulary: TextVocabulary = PUBLISHED


@flax.struct.dataclass
class PassPlan:
    """What may change without recompiling, one entry per pass.

    Attributes:
      counts: tokens to write.
      temperature: of the softmax.
      weights: guidance, one per view after the first.
    """

    counts: Int[Array, "s"]
    temperature: Float[Array, "s"]
    weights: Float[Array, "s views-1"]


def write_grid(
    state: State,
    keys: Key[Array, "b"],
    order: Int[Array, "b l"],
    plan: PassPlan,
    *,
    passes: Passes,
    specs: Specs,
    tokens_to_logits: TokensToLogits,
) -> State:
    """Fill the unknown positions of one grid or global modality; known ones are never changed.

    Args:
      state: what is known; every pass encodes it anew, with the tokens written so far.
      keys: one per row; a row's tokens depend on its own key only.
      order: positions in the order in which ROAR writes them, the unknown ones first. MaskGIT
        chooses by confidence and ignores it.
      plan: the schedule; a row whose positions are used up early is left alone.
      tokens_to_logits: the trunk.
    """
    initial = state
    num_open = (~state.known[passes.target]).sum(axis=1)

    def one_pass(carry, step):
        state, start = carry
        index, counts, temperature, weights = step
        targets = _targets(passes, specs, state, order, start, counts, num_open)
        logits = view_logits(
            _views(passes, specs, state, initial),
            [targets, *_other_targets(passes, specs, targets, state, order, counts, num_open)],
            specs,
            tokens_to_logits,
        )
        ids, confidence = sampling.sample(
            jax.vmap(lambda key: jax.random.fold_in(key, index))(keys),
            sampling.guide(logits, weights),
            temperature,
            top_k=passes.sampling.top_k,
            top_p=passes.sampling.top_p,
            draw=passes.sampling.draw,
            as_published=passes.sampling.as_published,
        )
        written = targets.valid
        if passes.scheme == "maskgit":
            written = sampling.keep_most_confident(confidence, targets.valid, counts)
        return (_write(state, passes.target, targets.position, ids, written), start + counts), None

    steps = (jnp.arange(len(plan.counts)), plan.counts, plan.temperature, plan.weights)
    (state, _), _ = jax.lax.scan(one_pass, (state, jnp.zeros((), jnp.int32)), steps)
    return state


def view_logits(
    views: Sequence[State],
    targets: Sequence[TargetTokens],
    specs: Specs,
    tokens_to_logits: TokensToLogits,
) -> Float[Array, "g b m v"]:
    """Logits of several views of the same samples, in one pass of the trunk."""
    logits = tokens_to_logits(states.token_batch(views, targets, specs))
    return logits.reshape(len(views), -1, *logits.shape[1:])


def _views(passes: Passes, specs: Specs, state: State, initial: State) -> list[State]:
    views = []
    for number, hidden in enumerate(passes.hidden):
        view = state
        if passes.forget and number:
            view = state.with_tokens(
                passes.target, initial.ids[passes.target], initial.known[passes.target]
            )
        views.append(
            states.hide(
                view,
                hidden,
                specs=specs,
                leave_trace=passes.leave_trace,
                vocabulary=passes.vocabulary,
            )
        )
    return views


def _targets(passes, specs, state, order, start, counts, num_open) -> TargetTokens:
    """Open positions: all of them, or the next `counts` of the order."""
    index = states.index_of(specs, passes.target)
    known = state.known[passes.target]
    if passes.scheme == "maskgit":
        positions = jnp.broadcast_to(jnp.arange(known.shape[1]), known.shape)
        return states.parallel_targets(index, positions, ~known)
    slots = start + jnp.arange(passes.num_slots)
    positions = jnp.take(order, slots, axis=1, mode="clip")
    valid = (slots < start + counts) & (slots < num_open[:, None])
    return states.parallel_targets(index, positions, valid)


def _other_targets(passes, specs, targets, state, order, counts, num_open) -> list[TargetTokens]:
    """Targets of the views after the first."""
    if passes.forget and passes.scheme == "roar":
        targets = _targets(passes, specs, state, order, 0, counts, num_open)
    return [targets] * (len(passes.hidden) - 1)


def _write(state: State, name: str, position, ids, written) -> State:
    """Put the written ids at their positions and make them known."""
    width = state.ids[name].shape[1]
    index = jnp.where(written, position, width)  # out of range = dropped
    put = jax.vmap(lambda row, at, values: row.at[at].set(values, mode="drop"))
    return state.with_tokens(
        name,
        put(state.ids[name], index, ids),
        put(state.known[name], index, jnp.ones_like(written)),
    )
