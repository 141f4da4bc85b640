"""Digests of the files of a folder, written beside them: a flipped bit is found before use."""

import hashlib
import json
from collections.abc import Iterator

from etils import epath

from fourm_jax.utils import io, plain_data

FILE = "digests.json"
_CHUNK = 2**22  # bytes


def write(folder: epath.PathLike) -> None:
    """Write {path within the folder: sha256} of every file that lies in it now.

    Raises:
      FileNotFoundError: the folder is gone; it is not made anew.
    """
    folder = epath.Path(folder)
    found = {name: _sha256(folder / name) for name in _names(folder)}
    temporary = folder / f"{FILE}.tmp"
    temporary.write_text(json.dumps(found, indent=2))
    temporary.replace(folder / FILE)


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


def _names(folder: epath.Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in _files(folder))
    return sorted(name for name in names if name != FILE)


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _sha256(path: epath.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
