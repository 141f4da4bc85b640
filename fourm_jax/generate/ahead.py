"""The programs of a chain compile side by side, before the first of them is called.

XLA compiles with Python's lock released, so that threads use all cores; tracing holds it, and goes
on while a program is waited for. Which programs a chain needs follows from what is known of its
state, but for the length of texts: what is written after a text that may be short or long is asked
for once the text is there.
"""

import concurrent.futures
import dataclasses
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Key

from fourm_jax.generate import buckets, stages
from fourm_jax.generate.grids import GridStage
from fourm_jax.generate.schedule import Step
from fourm_jax.generate.sequences import SequenceStage
from fourm_jax.generate.stages import Call
from fourm_jax.generate.state import State
from fourm_jax.models.fourm import FourM


class Programs:
    """What is compiled, being compiled or to be compiled, by the calls that it is for.

    A program that was compiled here is in the cache of its jitted function, where calls find it.
    """

    def __init__(self) -> None:
        self._expected: dict[Hashable, Call] = {}  # in the order of their calls
        self._begun: dict[Hashable, concurrent.futures.Future[Any]] = {}
        self._pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count(), "compile")

    def expect(self, calls: Iterable[Call]) -> list[Hashable]:
        """Say what will be called, in this order; returns the keys of what is new."""
        new = {call.key: call for call in calls if call.key not in self._begun}
        self._expected |= new
        return list(new)

    def wait(self, call: Call) -> None:
        """Wait for the program of a call; meanwhile programs of later calls are traced, one after
        the other, and begin to compile.

        Raises:
          jax.errors.JaxRuntimeError: the compiler fails.
        """
        key = call.key
        self._begin(key)
        while key in self._begun and not self._begun[key].done() and (later := [*self._expected]):
            self._begin(later[0])
        if key in self._begun:
            self._begun[key].result()

    def _begin(self, key: Hashable) -> None:
        call = self._expected.pop(key, None)
        if call is not None:
            self._begun[key] = self._pool.submit(call.function.lower(*call.arguments).compile)

    def give_up(self, keys: Iterable[Hashable]) -> None:
        """Forget those that no thread has begun to compile."""
        for key in keys:
            self._expected.pop(key, None)
            if key in self._begun and self._begun[key].cancel():
                del self._begun[key]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Writing:
    """How a chain writes one target.

    Attributes:
      steps: its own, one per pass.
      weights: of guidance, by pass and branch after the first.
      stage: what is static.
    """

    steps: Sequence[Step]
    weights: Float[np.ndarray, "s w"]
    stage: GridStage | SequenceStage


def calls(
    model: FourM,
    params: Any,
    state: State,
    keys: Key[Array, "b"],
    writings: Sequence[Writing],
    *,
    known: buckets.Known,
    lengths: Mapping[str, int] | None = None,
    fit_slots: bool,
) -> Iterator[list[Call]]:
    """What a chain calls for one target after the other, up to the first that sees a text of
    unknown length.

    Args:
      state: before the first of them; only its shapes are read.
      known: of that state.
      lengths: by text, how many tokens it will have; that of other texts is unknown.
    """
    known = dict(known)
    for one in writings:
        target = one.stage.target
        arguments = (model, params, state, keys)
        if isinstance(one.stage, SequenceStage):
            step, shape = one.steps[0], (state.batch_size, one.stage.length)
            written = (step, one.weights, one.stage, known)
            yield [stages.sequence_call(*arguments, *written, fit_slots=fit_slots)]
            text: Any = np.zeros(shape, np.int32), np.zeros(shape, bool)
            state = state.with_tokens(target, *text)
            length = (lengths or {}).get(target)
            known[target] = (1, one.stage.length) if length is None else (length, length)
            if fit_slots and len({buckets.bucket(count, shape[1]) for count in known[target]}) > 1:
                return
        else:
            drawn = (one.steps, one.weights, one.stage, known)
            yield stages.grid_calls(*arguments, *drawn, fit_slots=fit_slots)
            count, size = sum(step.num_tokens for step in one.steps), state.ids[target].shape[1]
            fewest, most = known[target]
            known[target] = (min(fewest + count, size), min(most + count, size))
