"""One writer per folder: a file that names host, process and start of who holds it."""

import contextlib
import datetime
import os
import pathlib
import socket
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from fourm_jax.utils import io, plain_data

FILE = "writer.json"
RULES = {
    "host": plain_data.TEXT,
    "process": plain_data.integer(1, 2**31 - 1),
    "started": plain_data.TEXT,
}


@contextlib.contextmanager
def hold(folder: epath.PathLike) -> Iterator[None]:
    """Hold `folder` for this process; the lock of a process that is gone is taken over.

    A holder on another host cannot be asked whether it still runs: its lock is respected, and the
    message says which file to remove.

    Raises:
      ValueError: another process holds the folder; names it.
    """
    path = epath.Path(folder) / FILE
    own = _describe()
    _check(path)
    io.write_json(path, own)
    if _read(path) != own:  # another process took it at the same moment
        _check(path)
    try:
        yield
    finally:
        if _read(path) == own:
            path.unlink()


def _check(path: epath.Path) -> None:
    holder = _read(path)
    if holder and _is_running(holder):
        raise ValueError(
            f"{path.parent} is in use by process {holder['process']} on {holder['host']}, started "
            f"{holder['started']}; wait for it, take another folder, or remove {path} if it is gone"
        )


def _describe() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "process_start": _process_start(os.getpid()),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "token": uuid.uuid4().hex,
    }


def _read(path: epath.Path) -> dict[str, Any]:
    """What the lock says; {} where there is none, or none that can be read."""
    try:
        value = io.read_json(path)
        plain_data.check(value, RULES, path, required=RULES)
    except (FileNotFoundError, ValueError):
        return {}
    return value


def _is_running(holder: dict[str, Any]) -> bool:
    if holder["host"] != socket.gethostname():
        return True
    try:
        os.kill(int(holder["process"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as another user
    # another process may have got the number of the one that is gone
    return _process_start(int(holder["process"])) == holder.get("process_start")


def _process_start(process: int) -> str:
    """Start of a process in the kernel's ticks since boot; "" where the system does not say."""
    try:
        stat = pathlib.Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
