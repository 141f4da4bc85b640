"""Any-to-any: run the steps of a schedule, one target after the other."""

import itertools
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from fourm_jax.generate import ahead, buckets, next_tokens, stages, trunk
from fourm_jax.generate.ahead import Programs, Writing
from fourm_jax.generate.grids import GridStage, Sampling
from fourm_jax.generate.schedule import Step
from fourm_jax.generate.sequences import SequenceStage
from fourm_jax.generate.state import State, index_of
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import PUBLISHED, TextVocabulary
from fourm_jax.models.fourm import FourM
from fourm_jax.utils import progress, rng
from fourm_jax.utils.errors import unknown_value


def row_keys(
    seed: int, rows: Int[Array | np.ndarray, "b"], num_samples: int = 1
) -> Key[Array, "b·samples"]:
    """One key per row number and sample, so that a row is the same in every batch.

    The samples of a row follow each other; the first has the key that it would have alone.
    """
    root = rng.stream(jax.random.key(rng.check_seed(seed)), "generate")
    keys = jax.vmap(lambda row: jax.random.fold_in(root, row))(jnp.asarray(rows))
    if num_samples == 1:
        return keys
    others = [rng.streams(keys, f"sample {number}") for number in range(1, num_samples)]
    return jnp.stack([keys, *others], axis=1).reshape(-1)


def run(
    model: FourM,
    params: Any,
    state: State,
    steps: Sequence[Step],
    *,
    keys: Key[Array, "b"],
    sampling: Sampling | Mapping[str, Sampling] | None = None,
    conditions: Sequence[tuple[str, ...]] = (),
    orders: Mapping[str, Int[Array, "b _l"]] | None = None,
    max_new: Mapping[str, int] | None = None,
    end_ids: Mapping[str, int] | None = None,
    vocabulary: TextVocabulary = PUBLISHED,
    programs: Programs | None = None,
    show_progress: bool = False,
) -> State:
    """Generate all targets of a schedule; arguments as those of `iterate`."""
    done = state
    for _, after in iterate(
        model,
        params,
        state,
        steps,
        keys=keys,
        sampling=sampling,
        conditions=conditions,
        orders=orders,
        max_new=max_new,
        end_ids=end_ids,
        vocabulary=vocabulary,
        programs=programs,
        show_progress=show_progress,
    ):
        done = after
    return done


def iterate(
    model: FourM,
    params: Any,
    state: State,
    steps: Sequence[Step],
    *,
    keys: Key[Array, "b"],
    sampling: Sampling | Mapping[str, Sampling] | None = None,
    conditions: Sequence[tuple[str, ...]] = (),
    drafts: Collection[str] = (),
    orders: Mapping[str, Int[Array, "b l"]] | None = None,
    max_new: Mapping[str, int] | None = None,
    end_ids: Mapping[str, int] | None = None,
    vocabulary: TextVocabulary = PUBLISHED,
    fit_slots: bool = True,
    programs: Programs | None = None,
    show_progress: bool = False,
) -> Iterator[tuple[str, State]]:
    """Generate all targets of a schedule; yields the target in hand and the state after every pass
    over a grid, and after every whole sequence.

    Args:
      model, params: the trunk.
      state: conditions and targets, see `state.create`.
      steps: see `schedule.build_chained_schedule`; consecutive steps of one target form a stage.
      keys: one per row, see `row_keys`.
      sampling: filters and drawing rule, of all targets or by target; default: plain categorical.
      conditions: for multi-guidance, the groups of conditions that are weighted against each other;
        `Step.guidance` then holds one weight per group, and every finished target becomes a group
        of its own with the next weight, but for `drafts`, which all groups see. Empty:
        classifier-free guidance as `Step.guided` says.
      drafts: targets that are no groups.
      orders: by target, the order in which ROAR writes the positions [b, l]; default: random, row
        by row (`Sampling.as_published`: the same for all rows).
      max_new: by sequence target, most tokens to generate; default: its `max_tokens`.
      end_ids: by sequence target, see `sequences.SequenceStage`.
      fit_slots: passes have slots for what is known and open alone, with a compiled program for
        every number of them; False: all slots of the state, one program per target.
      programs: compile what is not among them side by side, as far ahead as lengths of texts are
        known; None: one after the other, as they are called.
      show_progress: draw a bar over the targets.

    Raises:
      ValueError: a target that the model cannot predict, a scheme that does not suit its kind, or
        weights that do not match the conditions; before any step.
    """
    writings = plan_writings(
        model,
        state,
        steps,
        sampling,
        conditions,
        drafts,
        max_new=max_new,
        end_ids=end_ids,
        vocabulary=vocabulary,
    )
    targets = [one.stage.target for one in writings]
    names = progress.track(targets, label="generate", unit="target", enabled=show_progress)
    params = trunk.with_ready_kernels(model, params, state.batch_size)
    num_planned, new = 0, list[Hashable]()
    ready = programs.wait if programs is not None else None
    try:
        for number, (target, one) in enumerate(zip(names, writings, strict=True)):
            if programs is not None and number == num_planned:
                rest = (model, params, state, keys, writings[number:])
                found = buckets.known_range(state)
                calls = list(ahead.calls(*rest, known=found, fit_slots=fit_slots))
                num_planned += len(calls)
                new = programs.expect(itertools.chain.from_iterable(calls))
                if show_progress and new:
                    progress.announce(f"compiling {len(new)} programs side by side")
            drawn = (model, params, state, rng.streams(keys, target))
            order, how = (orders or {}).get(target), {"fit_slots": fit_slots, "ready": ready}
            for state in _write(drawn, one, order, how):
                yield target, state
    finally:
        if programs is not None:
            programs.give_up(new)


def _write(
    drawn: tuple[FourM, Any, State, Key[Array, "b"]],
    writing: Writing,
    order: Int[Array, "b l"] | None,
    how: Mapping[str, Any],
) -> Iterator[State]:
    """The state after a whole sequence, or after every pass over a grid."""
    stage = writing.stage
    if isinstance(stage, SequenceStage):
        yield stages.write_sequence(*drawn, writing.steps[0], writing.weights, stage, **how)
    else:
        yield from stages.grid_passes(*drawn, writing.steps, writing.weights, stage, order, **how)


def plan_writings(
    model: FourM,
    state: State,
    steps: Sequence[Step],
    sampling: Sampling | Mapping[str, Sampling] | None = None,
    conditions: Sequence[tuple[str, ...]] = (),
    drafts: Collection[str] = (),
    *,
    max_new: Mapping[str, int] | None = None,
    end_ids: Mapping[str, int] | None = None,
    vocabulary: TextVocabulary = PUBLISHED,
) -> list[Writing]:
    """How every target is written; arguments and errors as those of `iterate`."""
    rules = sampling if isinstance(sampling, Mapping) else {}
    every = sampling if isinstance(sampling, Sampling) else Sampling()
    groups = [list(group) for _, group in itertools.groupby(steps, lambda s: (s.target, s.scheme))]
    guidances = _guidances(model, state, groups, conditions, drafts)
    writings = []
    for group, (hidden, weights) in zip(groups, guidances, strict=True):
        target = group[0].target
        stage = _stage(
            model.modalities[index_of(model.modalities, target)],
            group,
            max_new=(max_new or {}).get(target),
            num_given=state.ids[target].shape[1],
            end_id=(end_ids or {}).get(target),
            is_weighted=bool(conditions),
            hidden_conditions=hidden,
            sampling=rules.get(target, every),
            vocabulary=vocabulary,
        )
        writings.append(Writing(steps=group, weights=weights, stage=stage))
    return writings


def _stage(
    spec: ModalitySpec,
    steps: Sequence[Step],
    *,
    max_new: int | None,
    num_given: int,
    end_id: int | None,
    is_weighted: bool,
    **shared: Any,
) -> GridStage | SequenceStage:
    """What is static about writing one target.

    Args:
      num_given: slots of the target in the state.
      is_weighted: several conditions are weighted against each other.
      shared: fields of both kinds.
    """
    shared |= {"target": spec.name, "leave_trace": not is_weighted}
    published = shared["sampling"].as_published
    if spec.kind == "sequence":
        return SequenceStage(
            max_new=spec.max_tokens if max_new is None else max_new,
            length=max(spec.max_tokens, num_given),
            end_id=end_id,
            grammar=None if published else next_tokens.grammar_of(spec, shared["vocabulary"]),
            **shared,
        )
    is_roar = steps[0].scheme == "roar"
    return GridStage(
        scheme="roar" if is_roar else "maskgit",
        num_slots=min(max(step.num_tokens for step in steps), spec.num_tokens),
        forget=is_roar and is_weighted and published,
        **shared,
    )


def _guidances(
    model: FourM,
    state: State,
    groups: Sequence[Sequence[Step]],
    conditions: Sequence[tuple[str, ...]],
    drafts: Collection[str],
) -> list[tuple[tuple[tuple[str, ...], ...], Float[np.ndarray, "s w"]]]:
    """`_guidance` of all stages, each target but `drafts` a condition of the following ones."""
    guidances, grown = [], tuple(tuple(group) for group in conditions)
    for group in groups:
        _check(model, state, group[0])
        guidances.append(_guidance(group, state, grown))
        if conditions and group[0].target not in drafts:
            grown += ((group[0].target,),)
    return guidances


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
) -> tuple[tuple[tuple[str, ...], ...], Float[np.ndarray, "s w"]]:
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
        return tuple(hidden), np.asarray(weights, np.float32)
    guided = tuple(name for name in stage[0].guided if name in state.ids and name != target)
    if not guided or all(step.guidance == 1 for step in stage):
        return ((),), np.zeros((len(stage), 0), np.float32)
    return (guided, ()), np.asarray([[step.guidance] for step in stage], np.float32)
