"""Errors of a disk or network that may pass: tried again, then raised, never taken for damage.

They say nothing about what a file holds, so that no record is left out because of them. The system
numbers its errors; libraries that read over a network (requests, urllib, fsspec) often do not, and
neither do decoders, which mean the content.
"""

import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any

PAUSES = (0.5, 2.0, 5.0)  # seconds before each further try
# Names, as not every system has all of them.
_NAMES = (
    "EIO EREMOTEIO ESTALE ETIMEDOUT EAGAIN EBUSY EMFILE ENFILE ENOMEM ENOLINK ECONNRESET "
    "ECONNABORTED ECONNREFUSED ENOTCONN EPIPE EHOSTDOWN EHOSTUNREACH ENETDOWN ENETRESET ENETUNREACH"
)
# Of an error without a number: what it is about, if it is one of these, will not pass.
_LASTING = (
    FileNotFoundError,
    PermissionError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,  # an operation that a file does not have
)
# Packages that raise an OSError without a number for bytes that they cannot decode.
_DECODERS = frozenset({"PIL", "gzip", "bz2", "_compression", "compression", "h5py"})
CODES = frozenset(getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name))
_MESSAGES = tuple(map(os.strerror, CODES))


class StorageError(OSError):
    """A file that could not be read at the moment, however often it was tried."""


def is_transient(error: Exception) -> bool:
    """Whether an error tells of storage and not of content.

    Libraries in C++ (array_record) raise a RuntimeError with the system's text in its message.
    An OSError without a number is one of storage, unless a decoder raised it.
    """
    if isinstance(error, RuntimeError):
        return any(message in str(error) for message in _MESSAGES)
    if isinstance(error, StorageError | ConnectionError | TimeoutError | socket.gaierror):
        return True
    if not isinstance(error, OSError) or isinstance(error, _LASTING):
        return False
    return error.errno in CODES or (error.errno is None and _raised_in(error) not in _DECODERS)


def _raised_in(error: Exception) -> str:
    """Package of the line that raised an error; "" of one that was not raised."""
    place, name = error.__traceback__, ""
    while place is not None:
        name, place = place.tb_frame.f_globals.get("__name__", ""), place.tb_next
    return name.partition(".")[0]


def retried(function: Callable[..., Any], *arguments: Any, file: Any) -> Any:
    """What the function returns, tried again after each of `PAUSES` where storage fails.

    Args:
      file: what it reads; turned into text for a message alone.

    Raises:
      StorageError: it failed every time; names the file. Other errors come as they are.
    """
    pauses = iter(PAUSES)
    while True:
        try:
            return function(*arguments)
        except Exception as error:
            if isinstance(error, StorageError) or not is_transient(error):
                raise
            pause = next(pauses, None)
            if pause is None:
                count = len(PAUSES) + 1
                raise StorageError(
                    f"{file} cannot be read at the moment, tried {count} times: "
                    f"{str(error) or type(error).__name__}"
                ) from error
        time.sleep(pause)
