"""Signals as requests: a run finishes its step, saves and leaves; other work leaves at once.

A command that was stopped this way ends with `EXIT_CODE`, so that whoever started it (a scheduler
of preemptible machines) knows that the same command continues the work.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again
PEER_GONE = 76  # another process of the run is gone; the same command on all hosts continues
HUNG = 77  # nothing happened for longer than the watchdog allows
LATEST_SECONDS = 25.0  # from a signal to the end; machines that are taken away go after 30
EXIT_SECONDS = 10.0  # that the threads of a command that was stopped get to end
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interrupted(SystemExit):
    """Work stopped on request; the same call continues it."""

    def __init__(self, message: str) -> None:
        super().__init__(EXIT_CODE)
        self.message = message

    def __str__(self) -> str:
        return self.message


def exit_in_time() -> None:
    """Let this process end within `EXIT_SECONDS` of now, though a thread of it may hang.

    Python waits for threads as it exits, and one that reads from a lost file system never ends.
    """
    timer = threading.Timer(EXIT_SECONDS, os._exit, [EXIT_CODE])
    timer.daemon = True
    timer.start()


class CutOff(BaseException):
    """A request to stop has come inside `StopRequest.cutting_off`."""


class StopRequest:
    """Context in which SIGTERM, SIGINT and SIGHUP are noticed whatever the run is doing.

    At first a signal raises `Interrupted`: nothing is to be saved. After `defer` it only sets
    `requested`; the loop looks at it wherever it can stop. Further ones change nothing, as a
    scheduler may send several; only a second Ctrl-C leaves at once, and not inside `saving`.
    Outside the main thread signals stay as they are.

    Python looks at signals between its own instructions, not inside a compilation or a device call
    of minutes. Where such a call lasts `LATEST_SECONDS` from the signal on, a thread says so and
    ends the process; only a state that is being written is waited for.
    """

    def __init__(
        self, leave: Callable[[int], object] = os._exit, doing: Callable[[], str] = lambda: "start"
    ) -> None:
        """`leave` ends the process with an exit code; `doing` says what it was busy with."""
        self.requested = False
        self.name = ""
        self._leave, self._doing = leave, doing
        self._deferring = self._saving = self._cutting_off = False
        self._before: dict[signal.Signals, Any] = {}
        self._left = threading.Event()

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in _heeded():
                self._before[number] = signal.signal(number, self._handle)
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._fd_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            threading.Thread(target=self._watch, name="last resort", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._before:
            signal.set_wakeup_fd(self._fd_before)
            os.close(self._writer)
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

    @contextlib.contextmanager
    def cutting_off(self) -> Iterator[None]:
        """What happens inside is worth nothing to a run that stops.

        Raises:
          CutOff: a request comes while it happens.
        """
        self._cutting_off = True
        try:
            yield
        finally:
            self._cutting_off = False

    def _handle(self, number: int, _: object) -> None:
        name = signal.Signals(number).name
        if not self._deferring:
            raise Interrupted(f"{name}: stopped before the first step; the same command starts it")
        again, self.requested, self.name = self.requested, True, self.name or name
        if self._cutting_off:
            self._cutting_off = False
            raise CutOff
        if again and number == signal.SIGINT and not self._saving:
            raise Interrupted(
                "SIGINT twice: left at once; the same command continues from the last checkpoint"
            )

    def _watch(self) -> None:
        """In a thread: the system writes the number of a signal into the pipe as it comes."""
        with os.fdopen(self._reader, "rb", buffering=0) as pipe:
            while content := pipe.read(1):
                if content[0] in self._before:
                    self._end_in_time(signal.Signals(content[0]).name)
                    return

    def _end_in_time(self, name: str) -> None:
        if self._left.wait(LATEST_SECONDS):
            return
        after = f"{name}: {LATEST_SECONDS:.0f} s later"
        if self._saving:
            print(f"{after} the state is still being written; then this process ends", flush=True)
            while self._saving and not self._left.wait(1):
                pass
            if self._left.wait(LATEST_SECONDS):
                return
        print(
            f"{after} this was not over: {self._doing()}. Stopped without saving; the same command "
            "continues from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        self._leave(EXIT_CODE)

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
