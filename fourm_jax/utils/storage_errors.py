"""Errors of a disk or network that may pass: tried again, then raised, never taken for damage.

They say nothing about what a file holds, so that no record is left out because of them.
"""

import errno
import os
import time
from collections.abc import Callable
from typing import Any

PAUSES = (0.5, 2.0, 5.0)  # seconds before each further try
# Names, as not every system has all of them.
_NAMES = (
    "EIO EREMOTEIO ESTALE ETIMEDOUT EAGAIN EBUSY EMFILE ENFILE ENOMEM ENOLINK ECONNRESET "
    "ECONNABORTED ECONNREFUSED ENOTCONN EPIPE EHOSTDOWN EHOSTUNREACH ENETDOWN ENETRESET ENETUNREACH"
)
CODES = frozenset(getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name))
_MESSAGES = tuple(map(os.strerror, CODES))


class StorageError(OSError):
    """A file that could not be read at the moment, however often it was tried."""


def is_transient(error: Exception) -> bool:
    """Whether an error tells of storage and not of content.

    Libraries in C++ (array_record) raise a RuntimeError with the system's text in its message.
    """
    if isinstance(error, RuntimeError):
        return any(message in str(error) for message in _MESSAGES)
    kinds = StorageError | ConnectionError | TimeoutError  # these two may come without a number
    return isinstance(error, kinds) or (isinstance(error, OSError) and error.errno in CODES)


def retried(function: Callable[..., Any], *arguments: Any, file: Any) -> Any:
    """What the function returns, tried again after each of `PAUSES` where storage fails.

    Args:
      file: what it reads, for the message.

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
                    f"{file} cannot be read at the moment, tried {count} times: {error}"
                ) from error
        time.sleep(pause)
