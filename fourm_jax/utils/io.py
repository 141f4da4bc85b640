"""Small files that are either complete or not there, and JSON from anywhere, in bounds.

A path with a scheme (gs://…) is an object of a store: there every write is of a whole object, at
once and for good, so that nothing is renamed, synchronized or appended to.
"""

import json
import os
import uuid
from typing import Any

from etils import epath

MAX_JSON_BYTES = 16 * 2**20  # of one text: what JSON describes can take 30 times as much memory
MAX_JSON_DEPTH = 64  # of lists and dicts inside each other: what reads them is recursive


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path leads to an object store (gs://…, s3://…)."""
    return "://" in os.fspath(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """A path from the root; `epath` alone makes a local path of gs://…."""
    path = epath.Path(path).expanduser()
    return path if is_remote(path) else path.absolute()


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Write `content` beside `path`, then rename.

    A kill, a loss of power or a full disk leaves the old file or the new one, never a part of it.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(path):
        path.write_bytes(content)
        return
    temporary = temporary_name(path)
    try:
        temporary.write_bytes(content)
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_name(path: epath.PathLike) -> epath.Path:
    """Where a file is written until it is whole, `<name>.<token>.tmp`: another name every time.

    Numbers of processes are no names: several machines that share a disk give out the same ones.
    """
    path = epath.Path(path)
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def append(path: epath.PathLike, content: bytes) -> None:
    """Add to the end of a file, new or not; an object of a store is written anew."""
    path = epath.Path(path)
    if is_remote(path):
        path.write_bytes((path.read_bytes() if path.exists() else b"") + content)
        return
    with path.open("ab") as file:
        file.write(content)


def sync(path: epath.PathLike) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    if is_remote(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: epath.PathLike, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: epath.PathLike) -> Any:
    """Read a JSON file.

    Raises:
      ValueError: as `parse_json`; names the file.
    """
    path = epath.Path(path)
    if path.stat().length > MAX_JSON_BYTES:
        raise ValueError(f"{path} has more than {MAX_JSON_BYTES} bytes: too large for JSON")
    return parse_json(path.read_bytes(), path)


def parse_json(text: str | bytes, what: Any, *, allow_nan: bool = True) -> Any:
    """Value of a JSON text that may come from a stranger.

    Args:
      text: UTF-8 where it is bytes.
      what: this is the text of, for messages.
      allow_nan: whether NaN and Infinity, which JSON does not have, are read.

    Raises:
      ValueError: no JSON, more than `MAX_JSON_BYTES`, or nested deeper than `MAX_JSON_DEPTH`.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"{what} has {len(text)} bytes, allowed for JSON: {MAX_JSON_BYTES}")
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, parse_constant=None if allow_nan else _refuse_constant)
        if text.count("[") + text.count("{") > MAX_JSON_DEPTH:  # else nothing can be so deep
            check_depth(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not valid JSON: {error}") from error
    return value


def check_depth(value: Any) -> None:
    """Check that lists and dicts are not nested deeper than `MAX_JSON_DEPTH`; loops over levels.

    Raises:
      ValueError: they are.
    """
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [part for node in level for part in _parts(node) if isinstance(part, dict | list)]
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} lists and dicts")


def _parts(node: Any) -> Any:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")
