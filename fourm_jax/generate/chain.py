"""Any-to-any: run the steps of a schedule one target after the other, each one compiled once."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from fourm_jax.generate import buckets, grids, sequences, trunk
from fourm_jax.generate.grids import GridStage, GridStep, Sampling
from fourm_jax.generate.schedule import Step
from fourm_jax.generate.sequences import SequenceStage
from fourm_jax.generate.state import State, index_of
from fourm_jax.modalities.vocabulary import PUBLISHED, TextVocabulary
from fourm_jax.models.fourm import FourM
from fourm_jax.ops import sampling as sampling_ops
from fourm_jax.utils import rng
from fourm_jax.utils.errors import unknown_value


def row_keys(
    seed: int, rows: Int[Array | np.ndarray, "b"], num_samples: int = 1
) -> Key[Array, "b·samples"]:
    """One key per row number and sample, so that a row is the same in every batch.

    The samples of a row follow each other; the first has the key that it would have alone.
    """
    root = rng.stream(jax.random.key(seed), "generate")
    keys = jax.vmap(lambda row: jax.random.fold_in(root, row))(jnp.asarray(rows))
    if num_samples == 1:
        return keys
    others = [
        jax.vmap(lambda key, number=number: rng.stream(key, f"sample {number}"))(keys)
        for number in range(1, num_samples)
    ]
    return jnp.stack([keys, *others], axis=1).reshape(-1)


def run(
    model: FourM,
    params: Any,
    state: State,
    steps: Sequence[Step],
    *,
    keys: Key[Array, "b"],
    sampling: Sampling | None = None,
    conditions: Sequence[tuple[str, ...]] = (),
    orders: Mapping[str, Int[Array, "b l"]] | None = None,
    max_new: Mapping[str, int] | None = None,
    end_ids: Mapping[str, int] | None = None,
    vocabulary: TextVocabulary = PUBLISHED,
) -> State:
    """Generate all targets of a schedule.

    Args:
      model, params: the trunk.
      state: conditions and targets, see `state.create`.
      steps: see `schedule.build_chained_schedule`; consecutive steps of one target form a stage.
      keys: one per row, see `row_keys`.
      sampling: filters and drawing rule; default: plain categorical.
      conditions: for multi-guidance, the groups of conditions that are weighted against each other;
        `Step.guidance` then holds one weight per group, and every finished target becomes a group
        of its own with the next weight. Empty: classifier-free guidance as `Step.guided` says.
      orders: by target, the order in which ROAR writes the positions [b, l]; default: random, row
        by row (`Sampling.as_published`: the same for all rows).
      max_new: by sequence target, most tokens to generate; default: its `max_tokens`.
      end_ids: by sequence target, see `sequences.SequenceStage`.

    Raises:
      ValueError: a target that the model cannot predict, a scheme that does not suit its kind, or
        weights that do not match the conditions; before any step.
    """
    sampling = sampling or Sampling()
    stages = [list(group) for _, group in itertools.groupby(steps, lambda s: (s.target, s.scheme))]
    for stage in stages:
        _check(model, state, stage[0])
    conditions = tuple(tuple(group) for group in conditions)
    for stage in stages:
        target = stage[0].target
        hidden, weights = _guidance(stage, state, conditions)
        stage_keys = jax.vmap(lambda key, name=target: rng.stream(key, name))(keys)
        spec = model.modalities[index_of(model.modalities, target)]
        shared: dict[str, Any] = {
            "target": target,
            "hidden_conditions": hidden,
            "leave_trace": not conditions,
            "sampling": sampling,
            "vocabulary": vocabulary,
        }
        if stage[0].scheme == "autoregressive":
            sequence = SequenceStage(
                max_new=(max_new or {}).get(target, spec.max_tokens),
                length=max(spec.max_tokens, state.ids[target].shape[1]),
                end_id=(end_ids or {}).get(target),
                **shared,
            )
            temperature = jnp.float32(stage[0].temperature)
            state = _sequence_stage(
                model, params, state, stage_keys, temperature, weights[0], sequence
            )
        else:
            roar = stage[0].scheme == "roar"
            grid = GridStage(
                scheme="roar" if roar else "maskgit",
                num_slots=min(max(step.num_tokens for step in stage), spec.num_tokens),
                forget=roar and bool(conditions) and sampling.as_published,
                **shared,
            )
            order = (orders or {}).get(target)
            if order is None:
                order = _random_order(stage_keys, state.known[target], sampling.as_published)
            state = _grid_stage(model, params, state, stage_keys, order, stage, weights, grid)
        if conditions:
            conditions += ((target,),)
    return state


def _check(model: FourM, state: State, step: Step) -> None:
    if step.target not in model.outputs:
        raise ValueError(unknown_value("target", step.target, model.outputs))
    if step.target not in state.ids:
        raise ValueError(unknown_value("target of the state", step.target, state.ids))
    kind = model.modalities[index_of(model.modalities, step.target)].kind
    if (kind == "sequence") != (step.scheme == "autoregressive"):
        allowed = "autoregressive" if kind == "sequence" else "maskgit or roar"
        raise ValueError(
            f"target {step.target!r} of kind {kind!r}: scheme {step.scheme!r}, allowed: {allowed}"
        )


def _guidance(
    stage: Sequence[Step], state: State, conditions: tuple[tuple[str, ...], ...]
) -> tuple[tuple[tuple[str, ...], ...], Float[Array, "s g-1"]]:
    """Hidden conditions of every branch [g], and the weights of the branches after the first."""
    target = stage[0].target
    if conditions:
        weights = [step.guidance for step in stage]
        for values in weights:
            if not isinstance(values, tuple) or len(values) != len(conditions):
                raise ValueError(
                    f"target {target!r}: guidance {values!r}, allowed: one weight for each of the "
                    f"conditions {conditions}"
                )
        every = tuple(name for group in conditions for name in group)
        hidden = [every, *(tuple(n for n in every if n not in group) for group in conditions)]
        return tuple(hidden), jnp.asarray(weights, jnp.float32)
    guided = tuple(name for name in stage[0].guided if name in state.ids and name != target)
    if not guided or all(step.guidance == 1 for step in stage):
        return ((),), jnp.zeros((len(stage), 0), jnp.float32)
    return (guided, ()), jnp.asarray([[step.guidance] for step in stage], jnp.float32)


def _hidden(stage: GridStage | SequenceStage) -> set[str]:
    return {name for names in stage.hidden_conditions for name in names}


@functools.partial(jax.jit, static_argnames="as_published")
def _random_order(
    keys: Key[Array, "b"], known: Bool[Array, "b l"], as_published: bool
) -> Int[Array, "b l"]:
    order_keys = jax.vmap(lambda key: rng.stream(key, "order"))(keys)
    if as_published:
        order_keys = jnp.broadcast_to(order_keys[:1], order_keys.shape)
    return sampling_ops.random_order(order_keys, ~known)


def _grid_stage(
    model: FourM,
    params: Any,
    state: State,
    keys: Key[Array, "b"],
    order: Int[Array, "b l"],
    steps: Sequence[Step],
    weights: Float[Array, "s g-1"],
    stage: GridStage,
) -> State:
    """All passes over one grid, each one with as many slots as there are tokens at most."""
    target, initial, num_written = stage.target, state, 0
    known, size = buckets.known_range(state), state.ids[stage.target].shape[1]
    for number, step in enumerate(steps):
        num_open = size - known[target][0] - num_written
        if step.num_tokens and num_open > 0:
            if stage.scheme == "maskgit":
                stage = dataclasses.replace(stage, num_slots=buckets.bucket(num_open, size))
            widths = buckets.input_widths(
                state, known, written={target: num_written}, hidden=_hidden(stage)
            )
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
    return state


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


def _sequence_stage(
    model: FourM,
    params: Any,
    state: State,
    keys: Key[Array, "b"],
    temperature: Float[Array, ""],
    weights: Float[Array, "g-1"],
    stage: SequenceStage,
) -> State:
    known = buckets.known_range(state)
    widths = buckets.input_widths(state, known, written={}, hidden=_hidden(stage))
    stage = dataclasses.replace(stage, input_widths=widths)
    return _write_sequence(model, params, state, keys, temperature, weights, stage)


@functools.partial(jax.jit, static_argnames=("model", "stage"))
def _write_sequence(
    model: FourM,
    params: Any,
    state: State,
    keys: Key[Array, "b"],
    temperature: Float[Array, ""],
    weights: Float[Array, "g-1"],
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
