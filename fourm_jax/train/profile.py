"""A trace of some steps of a run, for TensorBoard's profile plugin, xprof or Perfetto."""

import jax
from etils import epath

from fourm_jax.utils import io, progress

FOLDER = "profile"


class Profile:
    """Traces the steps `first` to `last` of a run into <workdir>/profile; (0, 0): none."""

    def __init__(self, workdir: epath.PathLike, first: int, last: int) -> None:
        """Steps count from 1.

        Raises:
          ValueError: they are not in order, or the folder is no local one.
        """
        if (first, last) != (0, 0) and not 1 <= first <= last:
            raise ValueError(f"profile of the steps {first} to {last}, allowed: 1 <= first <= last")
        if first and io.is_remote(workdir):
            raise ValueError(f"profile in {workdir}: traces are written to local folders only")
        self._folder = epath.Path(workdir) / FOLDER
        self._first, self._last = first, last
        self._running, self._is_missing = False, first > 0

    def before(self, step: int) -> None:
        """Start the trace, if step `step` is the first one."""
        if step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._running, self._is_missing = True, False

    def after(self, step: int, loss: jax.Array) -> None:
        """End the trace, if step `step` is the last one; waits for its loss."""
        if self._running and step >= self._last:
            loss.block_until_ready()
            self.close()
            progress.announce(f"profile of steps {self._first} to {step}: {self._folder}")

    def close(self) -> None:
        """End the trace, if it runs; say so where none began, as a run was beyond it."""
        if self._running:
            jax.profiler.stop_trace()
        if self._is_missing:
            steps = f"{self._first} to {self._last}"
            progress.announce(f"no profile of steps {steps}: this call did not take the first one")
        self._running, self._is_missing = False, False
