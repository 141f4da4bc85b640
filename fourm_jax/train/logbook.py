"""Log points of a run: metrics off the device one step late, rates, the bar, the files."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh

from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.train import flops, metrics, writers
from fourm_jax.train.state import TrainState
from fourm_jax.utils import progress

# So many steps that are not finite, among so many, before the run gives up.
MOST_SKIPPED, WINDOW = 20, 100
MOST_RANGES = 8  # of skipped batches that a message lists

Loss = tuple[int, jax.Array]  # number of a batch and its loss


class Logbook:
    """Collects, shows and writes what a run measures.

    `take` swaps the accumulated metrics for zeros without waiting; `flush`, called when the next
    step is already under way, waits for them and writes. So a log point never idles the device.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        state: TrainState,
        mesh: Mesh,
        *,
        start: int,
        num_steps: int,
        labels: tuple[str, ...],
        samples_per_step: int,
        flops_per_sample: float | None,
        show_progress: bool,
        label: str = "train",
        left_out: LeftOutLog | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Start at step `start`; `left_out` knows which records each batch left out."""
        self.values: dict[str, float] = {}
        self._labels, self._samples_per_step = labels, samples_per_step
        peak = flops.peak_flops(mesh.devices.flat[0])
        self._flops_limit = peak and flops_per_sample and peak * mesh.size / flops_per_sample
        shapes = jax.eval_shape(lambda: state.metrics)
        self._zeros = jax.jit(
            lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
            out_shardings=jax.tree.map(lambda x: x.sharding, state.metrics),
        )
        self._pending: tuple[int, metrics.Metrics, list[Loss]] | None = None
        self._losses: list[Loss] = []  # since the last log point; they stay on the device
        self._skipped: collections.deque[tuple[int, float]] = collections.deque()
        self._skipped_batches: list[int] = []
        self._left_out = left_out
        self._writers = writers.make(workdir, start=start, config=config)
        self._device = mesh.local_devices[0]
        self._waited = 0.0  # seconds for batches since the last log point
        self._bar = progress.Bar(
            num_steps,
            label=label,
            unit="step",
            start=start,
            enabled=show_progress,
            show_rate=False,  # samples per second leave compilation out
        )
        self._last_step, self._watch = start, progress.Stopwatch()
        self._num_steps = num_steps

    def tick(self, step: int) -> None:
        """Move the bar."""
        self._bar.update(step)

    def note(self, batch: int, loss: jax.Array) -> None:
        """Remember the loss of a batch until the next log point; NaN says that it was skipped."""
        self._losses.append((batch, loss))

    def restart_clock(self, step: int) -> None:
        """Leave what happened until now (compilation, evaluation) out of the next rate."""
        self._last_step, self._watch, self._waited = step, progress.Stopwatch(), 0.0

    def note_wait(self, seconds: float) -> None:
        """Count time in which no batch was ready."""
        self._waited += seconds

    def take(self, state: TrainState, step: int) -> TrainState:
        """Set the metrics of `state` aside for `flush`; return it with fresh ones."""
        self._pending, self._losses = (step, state.metrics, self._losses), []
        return state.replace(metrics=self._zeros())

    def flush(self) -> None:
        """Write the log point that was taken, if any.

        Raises:
          FloatingPointError: too many skipped steps; names their batches.
        """
        if self._pending is None:
            return
        (step, taken, losses), self._pending = self._pending, None
        values = metrics.compute(taken, self._labels)
        if self._left_out is not None and self._left_out.limit:
            values["left_out_records"] = float(self._left_out.count(step))
        num_steps = step - self._last_step
        if num_steps > 0:
            values |= self._rates(num_steps, values)
        self.restart_clock(step)
        self.record(step, values)
        self._bar.update(step, _shown(values))
        num_skipped, num_covered = (float(x) for x in jax.device_get(taken["skipped"]))
        self._check_skipped(step, num_skipped, int(num_covered), losses)

    def _rates(self, num_steps: int, values: Mapping[str, float]) -> dict[str, float]:
        """What the clock and the device say of the last steps (`metrics.MEASURED`)."""
        seconds = self._watch.seconds()
        rate = num_steps * self._samples_per_step / seconds
        found = {"samples_per_second": rate, "step_seconds": seconds / num_steps}
        found["waiting_share"] = min(self._waited / seconds, 1.0)
        tokens = [values.get(f"{side}_tokens_per_sample", 0.0) for side in ("input", "target")]
        if any(tokens):
            found["tokens_per_second"] = rate * sum(tokens)
        if self._flops_limit:
            found["mfu"] = rate / self._flops_limit
        memory = self._device.memory_stats() or {}  # none on a CPU
        if "peak_bytes_in_use" in memory:
            found["peak_memory_gib"] = memory["peak_bytes_in_use"] / 2**30
        return found

    def record(self, step: int, values: dict[str, float]) -> None:
        """Write values of any origin at `step`."""
        self.values |= values
        self._writers.write(step, values)

    def show(self, step: int, shown: Mapping[str, writers.Shown]) -> None:
        """Write texts, pictures and distributions."""
        self._writers.show(step, shown)

    def close(self) -> None:
        """Close bar and files."""
        self._bar.close()
        self._writers.close()

    def _check_skipped(
        self, step: int, new_skipped: float, num_steps: int, losses: Sequence[Loss]
    ) -> None:
        """Give up after too many skipped steps.

        Args:
          new_skipped: of the `num_steps` since the last log point. The clock knows fewer steps: it
            is set back by an evaluation, and a continued run starts between two log points.
        """
        if new_skipped > 0:
            skipped = [batch for batch, loss in losses if not math.isfinite(jax.device_get(loss))]
            self._skipped_batches += skipped
            progress.announce(
                f"step {step}: {new_skipped / num_steps:.0%} of the last steps were skipped (not "
                f"finite), batches {_ranges(skipped)}"
            )
        # The last log points, as few as cover the window.
        self._skipped.append((num_steps, new_skipped))
        while sum(steps for steps, _ in list(self._skipped)[1:]) >= WINDOW:
            self._skipped.popleft()
        num_covered = sum(steps for steps, _ in self._skipped)
        first = step - num_covered
        self._skipped_batches = [batch for batch in self._skipped_batches if batch >= first]
        num_skipped = round(sum(skipped for _, skipped in self._skipped))
        is_most = step == self._num_steps and 2 * num_skipped > num_covered  # of a short run
        if is_most or num_skipped >= MOST_SKIPPED * max(1, num_covered / WINDOW):
            raise FloatingPointError(
                f"loss, gradient or update not finite in {num_skipped} of the last {num_covered} "
                f"steps, up to step {step} (batches {_ranges(self._skipped_batches)}); "
                "the parameters are those from before. Try a smaller optimizer.lr, a longer "
                "warm-up or optimizer.clip_norm; the last checkpoint is untouched"
            )


def _shown(values: Mapping[str, float]) -> dict[str, str]:
    """What stands in the bar; `waiting` is the share of the time in which no batch was ready."""
    shown = {"loss": f"{values.get('loss', math.nan):.4f}"}
    if "samples_per_second" in values:
        shown["samples/s"] = f"{values['samples_per_second']:.0f}"
        shown["waiting"] = f"{values['waiting_share']:.0%}"
    if "mfu" in values:
        shown["mfu"] = f"{values['mfu']:.0%}"
    return shown


def _ranges(numbers: Sequence[int]) -> str:
    """Rising numbers in short, e.g. [3, 4, 5, 9] -> "3-5, 9"; of many runs the first ones."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    shown = ", ".join("-".join(map(str, run)) for run in runs[:MOST_RANGES])
    return shown + (", …" if len(runs) > MOST_RANGES else "")
