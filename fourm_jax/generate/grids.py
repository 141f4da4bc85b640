"""MaskGIT and ROAR: write the tokens of a grid in a few passes, each over many positions."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from fourm_jax.contracts import TargetTokens, TokenBatch
from fourm_jax.generate import state as states
from fourm_jax.generate.state import Specs, State, Widths
from fourm_jax.modalities.vocabulary import PUBLISHED, TextVocabulary
from fourm_jax.ops import filters, sampling

# [g, n] inputs and [g, m] targets of one modality -> [g, m, V] float32, g = branches · rows.
TokensToLogits = Callable[[TokenBatch], Float[Array, "g m vocab"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn; see `ops.sampling.sample`.

    Attributes:
      as_published: also of texts: any token may follow any other. By default tokens of a text come
        in an order that its form can read (`next_tokens`), of those that it has.
    """

    top_k: int | float = 0
    top_p: float = 0.0
    draw: sampling.Draw = sampling.draw_categorical
    as_published: bool = False

    def __post_init__(self):
        filters.check_filters(self.top_k, self.top_p)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridStage:
    """What is static about a pass over one grid; one compiled program per value.

    Attributes:
      target: modality name.
      scheme: "maskgit" or "roar".
      num_slots: target slots: room for all open positions for MaskGIT, for those of the largest
        step for ROAR.
      input_widths: by branch, the encoder slots of every modality, see `state.input_tokens`;
        branches of equal widths share a pass. Default: all slots.
      hidden_conditions: by branch of guidance, the conditions it does not see; the first branch is
        the unconditional one, or the only one.
      leave_trace: whether hidden conditions leave something, see `state.hide`.
      forget: the published multi-guided ROAR: branches other than the first never see what is being
        written and always predict the positions of the first step (docs/published.md#defects).
    """

    target: str
    scheme: Literal["maskgit", "roar"]
    num_slots: int
    input_widths: tuple[Widths, ...] = ()
    hidden_conditions: tuple[tuple[str, ...], ...] = ((),)
    leave_trace: bool = True
    forget: bool = False
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    vocabulary: TextVocabulary = PUBLISHED


@flax.struct.dataclass
class GridStep:
    """What may change from pass to pass without recompiling.

    Attributes:
      index: number of the pass; its random numbers depend on it.
      start: tokens that earlier passes have written.
      count: tokens to write.
      temperature: of the softmax.
      weights: of guidance, one per branch after the first.
    """

    index: Int[Array, ""]
    start: Int[Array, ""]
    count: Int[Array, ""]
    temperature: Float[Array, ""]
    weights: Float[Array, "w"]


def write_tokens(
    state: State,
    initial: State,
    keys: Key[Array, "b"],
    order: Int[Array, "b l"],
    step: GridStep,
    *,
    stage: GridStage,
    specs: Specs,
    tokens_to_logits: TokensToLogits,
) -> State:
    """Write the next tokens of one grid or global modality; known ones are never changed.

    Args:
      state: what is known; every pass encodes it again, with the tokens written so far.
      initial: what was known before the first pass.
      keys: one per row; a row's tokens depend on its own key only.
      order: positions in the order in which ROAR writes them, the unknown ones first. MaskGIT
        chooses by confidence and ignores it.
      step: how many; a row whose positions are used up early is left alone.
      tokens_to_logits: the trunk.
    """
    num_open = (~initial.known[stage.target]).sum(axis=1)
    targets = _targets(stage, specs, state, order, step.start, step.count, num_open)
    others = targets
    if stage.forget:
        others = _targets(stage, specs, state, order, 0, step.count, num_open)
    branches = _branches(stage, specs, state, initial)
    logits = branch_logits(
        branches,
        [targets] + [others] * (len(branches) - 1),
        specs,
        tokens_to_logits,
        stage.input_widths,
    )
    # A number per position of the grid, so that it does not matter which slot a position has.
    pass_keys = jax.vmap(lambda key: jax.random.fold_in(key, step.index))(keys)
    uniform = sampling.uniforms(pass_keys, order.shape[1])
    ids, confidence = sampling.sample(
        jnp.take_along_axis(uniform, targets.position, axis=1),
        sampling.guide(logits, step.weights),
        step.temperature,
        top_k=stage.sampling.top_k,
        top_p=stage.sampling.top_p,
        draw=stage.sampling.draw,
        as_published=stage.sampling.as_published,
    )
    chosen = targets.valid
    if stage.scheme == "maskgit":
        chosen = sampling.keep_most_confident(confidence, targets.valid, step.count)
    return _write(state, stage.target, targets.position, ids, chosen)


def branch_logits(
    branches: Sequence[State],
    targets: Sequence[TargetTokens],
    specs: Specs,
    tokens_to_logits: TokensToLogits,
    widths: tuple[Widths, ...] = (),
) -> Float[Array, "g b m v"]:
    """Logits of several branches of the same samples, one pass of the trunk per run of widths."""
    parts = []
    every = zip(branches, targets, widths or [()] * len(branches), strict=True)
    for shared, group in itertools.groupby(every, lambda one: one[2]):
        seen, asked, _ = zip(*group, strict=True)
        batch = states.token_batch(seen, asked, specs, shared)
        logits = tokens_to_logits(batch)
        parts.append(logits.reshape(len(seen), -1, *logits.shape[1:]))
    return jnp.concatenate(parts)


def _branches(stage: GridStage, specs: Specs, state: State, initial: State) -> list[State]:
    """What every branch of guidance sees."""
    forgetful = state
    if stage.forget:
        name = stage.target
        forgetful = state.with_tokens(name, initial.ids[name], initial.known[name])
    return [
        states.hide(
            states.in_branch(forgetful if number else state, number),
            hidden,
            specs=specs,
            leave_trace=stage.leave_trace,
            vocabulary=stage.vocabulary,
        )
        for number, hidden in enumerate(stage.hidden_conditions)
    ]


def _targets(
    stage: GridStage,
    specs: Specs,
    state: State,
    order: Int[Array, "b l"],
    start: Int[Array, ""] | int,
    count: Int[Array, ""],
    num_open: Int[Array, "b"],
) -> TargetTokens:
    """Open positions: all of them, or the next `count` of the order."""
    index = states.index_of(specs, stage.target)
    known = state.known[stage.target]
    if stage.scheme == "maskgit":
        positions = jnp.argsort(known, axis=1, stable=True)[:, : stage.num_slots]
        valid = ~jnp.take_along_axis(known, positions, axis=1)
        return states.parallel_targets(index, positions, valid)
    slots = start + jnp.arange(stage.num_slots)
    positions = jnp.take(order, slots, axis=1, mode="clip")
    valid = (slots < start + count) & (slots < num_open[:, None])
    return states.parallel_targets(index, positions, valid)


def _write(
    state: State,
    name: str,
    position: Int[Array, "b m"],
    ids: Int[Array, "b m"],
    chosen: Bool[Array, "b m"],
) -> State:
    """Put the chosen ids at their positions and make them known."""
    width = state.ids[name].shape[1]
    index = jnp.where(chosen, position, width)  # out of range = dropped
    put = jax.vmap(lambda row, at, values: row.at[at].set(values, mode="drop"))
    return state.with_tokens(
        name,
        put(state.ids[name], index, ids),
        put(state.known[name], index, jnp.ones_like(chosen)),
    )
