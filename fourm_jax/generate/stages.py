"""The compiled programs of generation: one per pass over a grid, one per sequence.

A stage is all that is static about writing one target. What changes from pass to pass is an
argument, so that another schedule, temperature or set of parameters compiles nothing new.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from fourm_jax.generate import buckets, grids, sequences, trunk
from fourm_jax.generate.grids import GridStage, GridStep
from fourm_jax.generate.schedule import Step
from fourm_jax.generate.sequences import SequenceStage
from fourm_jax.generate.state import State, Widths
from fourm_jax.models.fourm import FourM
from fourm_jax.ops import sampling
from fourm_jax.utils import hardware, rng


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a compiled program, of arrays or of their shapes alone.

    Attributes:
      function: jitted.
      arguments: model, parameters, state and so on; the last one is the stage.
    """

    function: Any
    arguments: tuple[Any, ...]

    @property
    def key(self) -> Hashable:
        """Calls of equal keys have one program, if their parameters are of the same kind."""
        model, _, state, *_, stage = self.arguments
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state))
        return self.function, model, stage, shapes

    def run(self, ready: Callable[["Call"], None] | None) -> State:
        """Call it once it is `ready`; None: it compiles if it has to."""
        if ready is not None:
            ready(self)
        state: State = self.function(*self.arguments)
        return state


def grid_passes(
    model: FourM,
    params: Any,
    state: State,
    keys: Key[Array, "b"],
    steps: Sequence[Step],
    weights: Float[np.ndarray, "s w"],
    stage: GridStage,
    order: Int[Array, "b l"] | None = None,
    *,
    fit_slots: bool = True,
    ready: Callable[[Call], None] | None = None,
) -> Iterator[State]:
    """The state after every pass over one grid, each with few more slots than there are tokens.

    Args:
      keys: one per row.
      steps: of this grid, one per pass.
      weights: of guidance, by pass and branch after the first.
      stage: what the passes share.
      order: in which ROAR writes the positions; default: random.
      fit_slots: see `chain.iterate`.
      ready: waits until a call can be made without compiling.
    """
    target, initial = stage.target, state
    if order is None and stage.scheme == "maskgit":  # which ignores it
        order = jnp.zeros(state.known[target].shape, jnp.int32)
    elif order is None:
        order = _random_order(keys, state.known[target], stage.sampling.as_published)
    order = jnp.asarray(order, jnp.int32)
    known = buckets.known_range(state)
    for number, start, fitted in _fitted(model, state, known, steps, stage, fit_slots=fit_slots):
        step = _grid_step(number, start, steps[number], weights)
        call = Call(_write_tokens, (model, params, state, initial, keys, order, step, fitted))
        state = call.run(ready)
        yield state


def grid_calls(
    model: FourM,
    params: Any,
    state: State,
    keys: Key[Array, "b"],
    steps: Sequence[Step],
    weights: Float[np.ndarray, "s w"],
    stage: GridStage,
    known: buckets.Known,
    *,
    fit_slots: bool = True,
) -> list[Call]:
    """Calls like those that `grid_passes` makes if so much is `known`; of the state only the shapes
    are read."""
    shape = state.ids[stage.target].shape
    order = np.zeros(shape, np.int32)
    step = _grid_step(0, 0, steps[0], weights)
    return [
        Call(_write_tokens, (model, params, state, state, keys, order, step, fitted))
        for _, _, fitted in _fitted(model, state, known, steps, stage, fit_slots=fit_slots)
    ]


def _fitted(
    model: FourM,
    state: State,
    known: buckets.Known,
    steps: Sequence[Step],
    stage: GridStage,
    *,
    fit_slots: bool,
) -> Iterator[tuple[int, int, GridStage]]:
    """Of every pass that writes something its number, the tokens written before, and the stage."""
    target, num_written = stage.target, 0
    size = state.ids[target].shape[1]
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
            yield number, num_written, dataclasses.replace(stage, input_widths=widths)
            num_written += step.num_tokens


def _grid_step(number: int, start: int, step: Step, weights: Float[np.ndarray, "s w"]) -> GridStep:
    numbers: dict[str, Any] = {  # of the host: a transfer with the call, instead of one for each
        "index": np.int32(number),
        "start": np.int32(start),
        "count": np.int32(step.num_tokens),
        "temperature": np.float32(step.temperature),
        "weights": weights[number],
    }
    return GridStep(**numbers)


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
    weights: Float[np.ndarray, "1 w"],
    stage: SequenceStage,
    *,
    fit_slots: bool = True,
    ready: Callable[[Call], None] | None = None,
) -> State:
    """Write one sequence; arguments as those of `grid_passes`, with one step."""
    known = buckets.known_range(state) if fit_slots else {}
    written = (model, params, state, keys, step, weights, stage, known)
    return sequence_call(*written, fit_slots=fit_slots).run(ready)


def sequence_call(
    model: FourM,
    params: Any,
    state: State,
    keys: Key[Array, "b"],
    step: Step,
    weights: Float[np.ndarray, "1 w"],
    stage: SequenceStage,
    known: buckets.Known,
    *,
    fit_slots: bool = True,
) -> Call:
    """The call of `write_sequence` if so much is `known`."""
    if fit_slots:
        widths = _widths(model, state, known, {}, stage)
        stage = dataclasses.replace(stage, input_widths=buckets.common(widths))
    temperature = np.float32(step.temperature)
    drawable = sequences.drawable(stage, model.modalities)
    params = trunk.with_head_rows(model, params, stage.target, drawable)
    return Call(_write_sequence, (model, params, state, keys, temperature, weights[0], stage))


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
        decoder=trunk.TrunkSequenceDecoder(
            model, params, stage.target, sequences.drawable(stage, model.modalities)
        ),
    )


def _widths(
    model: FourM,
    state: State,
    known: buckets.Known,
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
    order_keys = rng.streams(keys, "order")
    if as_published:
        order_keys = jnp.broadcast_to(order_keys[:1], order_keys.shape)
    return sampling.random_order(order_keys, ~known)
