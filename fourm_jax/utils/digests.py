"""Digests of the files of a folder, written beside them: a flipped bit is found before use."""

import hashlib
import os
from collections.abc import Collection, Iterator

from etils import epath

from fourm_jax.utils import io, plain_data

FILE = "digests.json"
_CHUNK = 2**22  # bytes


def write(folder: epath.PathLike, *, except_names: Collection[str] = ()) -> None:
    """Write {path within the folder: sha256} of every file that lies in it now, but `except_names`.

    All of them are on the disk afterwards, not only on their way to it.

    Raises:
      FileNotFoundError: the folder is gone; it is not made anew.
    """
    folder = epath.Path(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in _files(folder))
    found = {
        name: _sha256(folder / name, sync=True)
        for name in names
        if name not in (FILE, *except_names)
    }
    io.write_json(folder / FILE, found)


def damaged(folder: epath.PathLike) -> list[str] | None:
    """Return the files that are missing or not what was written; None where no digests lie here.

    Raises:
      OSError: a file cannot be read at the moment, which says nothing about its content.
    """
    folder = epath.Path(folder)
    if not (folder / FILE).exists():
        return None
    try:
        expected = io.read_json(folder / FILE)
        plain_data.check(expected, {}, folder / FILE)
        names = sorted(expected)
    except ValueError:
        return [FILE]
    return [name for name in names if not _is(folder / name, expected[name])]


def _is(path: epath.Path, digest: str) -> bool:
    return path.is_file() and _sha256(path) == digest


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _sha256(path: epath.Path, *, sync: bool = False) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
