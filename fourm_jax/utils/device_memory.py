"""A device with too little memory, said in one line."""

import contextlib
from collections.abc import Iterator

import jax

_CODE = "RESOURCE_EXHAUSTED"  # of XLA, whatever the device


class DeviceMemoryError(MemoryError):
    """A program does not fit on the device."""


@contextlib.contextmanager
def explained(advice: str) -> Iterator[None]:
    """Context in which XLA's report of several screens becomes its first line and `advice`.

    Raises:
      DeviceMemoryError: the device has too little memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = str(error)
        if _CODE not in reason:
            raise
        first = reason[reason.index(_CODE) :].splitlines()[0][:200]
        raise DeviceMemoryError(f"too little memory on the device ({first}). {advice}") from error
