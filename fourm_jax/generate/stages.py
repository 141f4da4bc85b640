"""The compiled programs of generation: one per pass over a grid, one per sequence.

A stage is all that is static about writing one target. What changes from pass to pass is an
argument, so that another schedule, temperature or set of parameters compiles nothing new.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from fourm_jax.generate import buckets, grids, sequences, trunk
from fourm_jax.generate.grids import GridStage, GridStep
from fourm_jax.generate.schedule import Step
from fourm_jax.generate.sequences import SequenceStage
from fourm_jax.generate.state import State, Widths
from fourm_jax.models.fourm import FourM
from fourm_jax.ops import sampling
from fourm_jax.utils import hardware, rng


def grid_passes(
    model: FourM,
    params: Any,
    state: State,
    keys: Key[Array, "b"],
    steps: Sequence[Step],
    weights: Float[Array, "s w"],
    stage: GridStage,
    order: Int[Array, "b l"] | None = None,
    *,
    fit_slots: bool = True,
) -> Iterator[State]:
    """The state after every pass over one grid, each with few more slots than there are tokens.

    Args:
      keys: one per row.
      steps: of this grid, one per pass.
      weights: of guidance, by pass and branch after the first.
      stage: what the passes share.
      order: in which ROAR writes the positions; default: random.
      fit_slots: see `chain.iterate`.
    """
    target, initial, num_written = stage.target, state, 0
    if order is None:
        order = _random_order(keys, state.known[target], stage.sampling.as_published)
    known, size = buckets.known_range(state), state.ids[stage.target].shape[1]
    for number, step in enumerate(steps):
        num_open = size - known[target][0] - num_written
        if step.num_tokens and num_open > 0:
            if stage.scheme == "maskgit":
                num_slots = buckets.bucket(num_open, size) if fit_slots else size
                stage = dataclasses.replace(stage, num_slots=num_slots)
            widths: tuple[Widths, ...] = ()
            if fit_slots:
                widths = _widths(model, state, known, {target: num_written}, stage)
            if widths and hardware.platform() != "cpu":  # all branches in one pass
                widths = (buckets.common(widths),) * len(widths)
            state = _write_tokens(
                model,
                params,
                state,
                initial,
                keys,
                jnp.asarray(order, jnp.int32),
                GridStep(
                    index=jnp.int32(number),
                    start=jnp.int32(num_written),
                    count=jnp.int32(step.num_tokens),
                    temperature=jnp.float32(step.temperature),
                    weights=weights[number],
                ),
                dataclasses.replace(stage, input_widths=widths),
            )
            num_written += step.num_tokens
            yield state


@functools.partial(jax.jit, static_argnames=("model", "stage"))
def _write_tokens(
    model: FourM,
    params: Any,
    state: State,
    initial: State,
    keys: Key[Array, "b"],
    order: Int[Array, "b l"],
    step: GridStep,
    stage: GridStage,
) -> State:
    return grids.write_tokens(
        state,
        initial,
        keys,
        order,
        step,
        stage=stage,
        specs=model.modalities,
        tokens_to_logits=trunk.tokens_to_logits(model, params, stage.target),
    )


def write_sequence(
    model: FourM,
    params: Any,
    state: State,
    keys: Key[Array, "b"],
    step: Step,
    weights: Float[Array, "1 w"],
    stage: SequenceStage,
    *,
    fit_slots: bool = True,
) -> State:
    """Write one sequence; arguments as those of `grid_passes`, with one step."""
    if fit_slots:
        widths = _widths(model, state, buckets.known_range(state), {}, stage)
        stage = dataclasses.replace(stage, input_widths=buckets.common(widths))
    temperature = jnp.float32(step.temperature)
    return _write_sequence(model, params, state, keys, temperature, weights[0], stage)


@functools.partial(jax.jit, static_argnames=("model", "stage"))
def _write_sequence(
    model: FourM,
    params: Any,
    state: State,
    keys: Key[Array, "b"],
    temperature: Float[Array, ""],
    weights: Float[Array, "w"],
    stage: SequenceStage,
) -> State:
    return sequences.write_sequence(
        state,
        keys,
        temperature,
        weights,
        stage=stage,
        specs=model.modalities,
        decoder=trunk.TrunkSequenceDecoder(model, params, stage.target),
    )


def _widths(
    model: FourM,
    state: State,
    known: Mapping[str, tuple[int, int]],
    written: Mapping[str, int],
    stage: GridStage | SequenceStage,
) -> tuple[Widths, ...]:
    """Encoder slots of every branch of guidance."""
    traced = {spec.name for spec in model.modalities if spec.kind in ("sequence", "embedding")}
    return tuple(
        buckets.input_widths(
            state,
            known,
            written=written,
            hidden={name: int(stage.leave_trace and name in traced) for name in names},
        )
        for names in stage.hidden_conditions
    )


@functools.partial(jax.jit, static_argnames="as_published")
def _random_order(
    keys: Key[Array, "b"], known: Bool[Array, "b l"], as_published: bool
) -> Int[Array, "b l"]:
    order_keys = jax.vmap(lambda key: rng.stream(key, "order"))(keys)
    if as_published:
        order_keys = jnp.broadcast_to(order_keys[:1], order_keys.shape)
    return sampling.random_order(order_keys, ~known)
