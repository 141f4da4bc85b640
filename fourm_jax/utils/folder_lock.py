"""One writer per folder: a file that names host, process and start of who holds it."""

import contextlib
import datetime
import os
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from fourm_jax.utils import io, plain_data, progress

FILE = "writer.json"
RULES = {
    "host": plain_data.TEXT,
    "process": plain_data.integer(1, 2**31 - 1),
    "started": plain_data.TEXT,
}
BEAT_SECONDS = 20.0  # a holder says so often that it is alive
STALE_SECONDS = 90.0  # a holder on another host that was silent for so long is gone


@contextlib.contextmanager
def hold(folder: epath.PathLike) -> Iterator[None]:
    """Hold `folder` for this process; the lock of a process that is gone is taken over.

    A holder on this host is looked up in the process table. One on another host is watched: it is
    gone when its file is not touched for `STALE_SECONDS`, so a job that was moved to another
    machine continues by itself after at most that long.

    Raises:
      ValueError: another process holds the folder; names it.
    """
    path = epath.Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    own = _describe()
    while not _create(path, own):
        _wait_for_end(path)
    released = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, own, released), name="lock", daemon=True)
    beat.start()
    try:
        yield
    finally:
        released.set()
        beat.join()
        if _read(path) == own:
            path.unlink()


def _create(path: epath.Path, own: dict[str, Any]) -> bool:
    """Write the lock where there is none, with all its content at once; say whether it is ours."""
    if io.is_remote(path):  # no links: two that start in the same moment may both pass
        if path.exists():
            return False
        io.write_json(path, own)
        return True
    temporary = path.with_name(f"{FILE}.{own['token']}.tmp")
    io.write_json(temporary, own)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links: two that start in the same moment may both pass
        if path.exists():
            return False
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _wait_for_end(path: epath.Path) -> None:
    """Return once the holder is known to be gone, its lock removed.

    Raises:
      ValueError: the holder is alive.
    """
    holder = _read(path)
    if holder:
        here = (holder["host"], holder.get("namespace")) == (socket.gethostname(), _namespace())
        if _is_running(holder) if here else _is_beating(path, holder):
            raise ValueError(f"{_in_use(path, holder)}; wait for it or take another folder")
    if _read(path) == holder:
        path.unlink(missing_ok=True)


def _is_beating(path: epath.Path, holder: dict[str, Any]) -> bool:
    """Whether a holder whose process cannot be looked up touches its lock."""
    touched = _touched(path)
    if touched is None or time.time() - touched > STALE_SECONDS:
        return False
    seconds = f"{STALE_SECONDS:.0f}"
    progress.announce(f"{_in_use(path, holder)}, or was: watching for at most {seconds} seconds")
    until = time.monotonic() + STALE_SECONDS
    while time.monotonic() < until and _touched(path) == touched:
        time.sleep(min(1.0, STALE_SECONDS / 10))
    return _touched(path) not in (touched, None)


def _in_use(path: epath.Path, holder: dict[str, Any]) -> str:
    return (
        f"{path.parent} is in use by process {holder['process']} on {holder['host']}, started "
        f"{holder['started']}"
    )


def _beat(path: epath.Path, own: dict[str, Any], released: threading.Event) -> None:
    while not released.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):  # the next beat may pass
            if _read(path) == own:
                _touch(path, own)


def _touch(path: epath.Path, own: dict[str, Any]) -> None:
    if io.is_remote(path):
        io.write_json(path, own)
    else:
        os.utime(path)


def _describe() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "namespace": _namespace(),
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


def _touched(path: epath.Path) -> float | None:
    """When the lock was last touched, None where there is none."""
    try:
        if io.is_remote(path):
            return float(path.stat().mtime)
        return pathlib.Path(path).stat().st_mtime
    except FileNotFoundError:
        return None


def _is_running(holder: dict[str, Any]) -> bool:
    try:
        os.kill(int(holder["process"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as another user
    # another process may have got the number of the one that is gone
    return _process_start(int(holder["process"])) == holder.get("process_start")


def _namespace() -> str:
    """Whose process numbers these are: two containers of one host name do not see each other's."""
    try:
        return str(pathlib.Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _process_start(process: int) -> str:
    """Start of a process in the kernel's ticks since boot; "" where the system does not say."""
    try:
        stat = pathlib.Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
