"""Benchmarks that share a device compile beside each other and measure one after the other."""

import fcntl
import os
import pathlib
import time
from typing import IO

PATIENCE = 240.0  # seconds; then those that are ready measure while others still compile
_PAUSE = 0.2
_own: dict[str, pathlib.Path] = {}
_held: dict[str, IO[str]] = {}


def enter(folder: str) -> None:
    """Say that this process will measure, before it compiles; "" = there are no others.

    Those that enter first measure first.
    """
    if folder and folder not in _own:
        place = pathlib.Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        _own[folder] = place / f"{time.time_ns():020d}-{os.getpid()}.compiles"
        _own[folder].touch()


def take(folder: str) -> None:
    """Wait until all have compiled, and those that measure before this process have ended.

    The turn is given back when this process ends and not before: JAX keeps what memory of a device
    it has had, so that the next one finds it free only then.
    """
    if not folder or folder in _held:
        return
    enter(folder)
    place = pathlib.Path(folder)
    own = _own[folder] = _own[folder].rename(_own[folder].with_suffix(".waits"))
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and any(map(_lives, place.glob("*.compiles"))):
        time.sleep(_PAUSE)
    file = place.joinpath("turn").open("w")
    while any(other < own and _lives(other) for other in place.glob("*.waits")) or not _lock(file):
        time.sleep(_PAUSE)
    _held[folder] = file


def _lives(path: pathlib.Path) -> bool:
    """Whether the process that has written a file is still there."""
    try:
        os.kill(int(path.stem.partition("-")[2]), 0)
    except ProcessLookupError:
        return False
    return True


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
