"""Digests of the files of a folder, written beside them: a flipped bit is found before use."""

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from etils import epath

from fourm_jax.utils import io, plain_data

FILE = "digests.json"
ARRAYS = "arrays.json"  # beside it, where the files hold arrays
_CHUNK = 2**22  # bytes


class Part(NamedTuple):
    """Bytes of an array: all, or some, of those that it has on the disk."""

    file: str  # within the folder
    offset: int
    length: int


def write_arrays(folder: epath.PathLike, arrays: Mapping[str, Sequence[Part]]) -> None:
    """Write a digest of each part of each array; before `write`, which guards this file, too."""
    folder = epath.Path(folder)
    found = {
        name: [[*part, _sha256_of_part(folder, part)] for part in parts]
        for name, parts in sorted(arrays.items())
    }
    io.write_json(folder / ARRAYS, found)


def damaged_arrays(folder: epath.PathLike, files: Collection[str]) -> list[str]:
    """Return the arrays with bytes in these damaged files that are not what was written.

    Empty where only other bytes are damaged, or where nothing tells which array lies where.
    """
    folder = epath.Path(folder)
    if ARRAYS in files or not (folder / ARRAYS).exists():
        return []
    try:
        arrays = io.read_json(folder / ARRAYS)
    except ValueError:  # of so many arrays that it is too large to be read whole
        return []
    return [
        name
        for name, parts in arrays.items()
        if any(
            part[0] in files and _sha256_of_part(folder, Part(*part[:3])) != part[3]
            for part in parts
        )
    ]


def describe_damage(folder: epath.PathLike, files: Sequence[str]) -> str:
    """Name what is damaged: the arrays, as far as it is known, and the files."""
    arrays = damaged_arrays(folder, files)
    named = [f"array {_first(arrays)} in "] if arrays else []
    return "".join([*named, _first(files), " not as written"])


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


def write(folder: epath.PathLike, *, except_names: Collection[str] = ()) -> None:
    """Write {path within the folder: sha256} of its files, without `except_names`.

    All of them are on the disk afterwards, not only on their way to it.

    Raises:
      FileNotFoundError: the folder is gone; it is not made again.
    """
    folder = epath.Path(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in _files(folder))
    found = {
        name: _sha256(folder / name, sync=True)
        for name in names
        if name not in (FILE, *except_names)
    }
    io.write_json(folder / FILE, found)


def add(folder: epath.PathLike, name: str) -> None:
    """Write the digest of one file more, where digests lie here; the others stay as they are."""
    folder = epath.Path(folder)
    if (folder / FILE).exists():
        io.write_json(folder / FILE, {**io.read_json(folder / FILE), name: _sha256(folder / name)})


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
        if sync and not io.is_remote(path):
            os.fsync(file.fileno())
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sha256_of_part(folder: epath.Path, part: Part) -> str:
    """Digest of some bytes of a file; "" where the file does not have them."""
    path, digest, left = folder / part.file, hashlib.sha256(), part.length
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(part.offset)
        while left and (chunk := file.read(min(left, _CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
    return "" if left else digest.hexdigest()
