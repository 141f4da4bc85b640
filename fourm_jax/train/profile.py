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
        self._running = False

    def before(self, step: int) -> None:
        """Start the trace, if step `step` is the first one."""
        if step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, step: int, loss: jax.Array) -> None:
        """End the trace, if step `step` is the last one; waits for its loss."""
        if self._running and step >= self._last:
            loss.block_until_ready()
            self.close()
            progress.announce(f"profile of steps {self._first} to {step}: {self._folder}")

    def close(self) -> None:
        """End the trace, if it runs."""
        if self._running:
            jax.profiler.stop_trace()
        self._running = False
