"""Benchmarks that share a device compile beside each other and measure one after the other."""

import contextlib
import fcntl
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def turn(path: str) -> Iterator[None]:
    """Wait until no other process holds the file `path`, and hold it; "" = there are no others."""
    if not path:
        yield
        return
    with pathlib.Path(path).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # given back where the file is closed, or the process ends
        yield
