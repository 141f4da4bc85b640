"""Signals as requests: a run finishes its step, saves and leaves; other work leaves at once.

A command that was stopped this way ends with `EXIT_CODE`, so that whoever started it (a scheduler
of preemptible machines) knows that the same command continues the work.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interrupted(SystemExit):
    """Work stopped on request; the same call continues it."""

    def __init__(self, message: str) -> None:
        super().__init__(EXIT_CODE)
        self.message = message

    def __str__(self) -> str:
        return self.message


class StopRequest:
    """Context in which SIGTERM, SIGINT and SIGHUP are noticed whatever the run is doing.

    At first a signal raises `Interrupted`: nothing is to be saved. After `defer` the first one only
    sets `requested`; the loop looks at it wherever it can stop. A second one acts as it would have
    without this context, except inside `saving`. Outside the main thread signals stay as they are.
    """

    def __init__(self) -> None:
        self.requested = False
        self.name = ""
        self._deferring = self._saving = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in _heeded():
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def defer(self) -> None:
        """From now on a signal is a request: there is something to save."""
        self._deferring = True

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """What happens inside is not cut off by further signals."""
        self._saving = True
        try:
            yield
        finally:
            self._saving = False

    def _handle(self, number: int, _: object) -> None:
        name = signal.Signals(number).name
        if not self._deferring:
            raise Interrupted(f"{name}: stopped before the first step; the same command starts it")
        if self.requested and not self._saving:
            self._restore()
            signal.raise_signal(number)
        self.requested, self.name = True, name

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def _heeded() -> list[signal.Signals]:
    """Signals that this process does not ignore, as one does under `nohup`."""
    return [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


@contextlib.contextmanager
def leave_on_signal() -> Iterator[None]:
    """Context in which SIGTERM, SIGINT and SIGHUP raise `Interrupted`, for work that resumes."""

    def leave(number: int, _: object) -> None:
        name = signal.Signals(number).name
        raise Interrupted(f"{name}: stopped; the same command continues from what is complete")

    before = {number: signal.signal(number, leave) for number in _heeded()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
