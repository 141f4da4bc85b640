"""SIGTERM and Ctrl-C as a request: finish the step, save, leave."""

import signal
import threading
from typing import Any


class Interrupted(SystemExit):
    """A run stopped on request; its state is saved and the same call continues it."""


class StopRequest:
    """Context in which the first SIGTERM or SIGINT only sets `requested`; a second one acts.

    The signal is noticed whatever the run is doing (compiling, evaluating, saving); the loop looks
    at `requested` wherever it can stop. Outside the main thread signals stay as they are.
    """

    def __init__(self) -> None:
        self.requested = False
        self.name = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        self._restore()

    def _handle(self, number: int, _) -> None:
        self.requested = True
        self.name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
