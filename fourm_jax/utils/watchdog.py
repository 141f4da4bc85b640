"""An end for a run that hangs: stacks of all threads to the log, and an exit code of its own."""

import faulthandler
import math
import os
import sys
import threading
from collections.abc import Callable

from fourm_jax.utils import interrupt

POLL_SECONDS = 1.0


class Watchdog:
    """Context that ends the process after `seconds` without `beat`; 0 = never.

    It counts its own polls, so that a process that was halted and goes on is not taken for hung.
    """

    def __init__(self, seconds: float) -> None:
        if not 0 <= seconds < math.inf:
            raise ValueError(f"hang_seconds {seconds}, allowed: numbers from 0 on; 0: never")
        self._seconds, self._silent, self.doing = seconds, 0.0, "start"
        self._ended = threading.Event()
        self._exit: Callable[[int], None] = os._exit

    def __enter__(self) -> "Watchdog":
        if self._seconds:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def beat(self, doing: str) -> None:
        """Something was done; `doing` names what comes next."""
        self._silent, self.doing = 0.0, doing

    def _watch(self) -> None:
        poll = min(POLL_SECONDS, self._seconds / 4)
        while not self._ended.wait(poll):
            self._silent += poll
            if self._silent > self._seconds:
                print(
                    f"nothing happened for {self._seconds:.0f} s in: {self.doing}. All threads:",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
                print(
                    "hung: the same command continues from the last checkpoint",
                    file=sys.stderr,
                    flush=True,
                )
                self._exit(interrupt.HUNG)
                return
