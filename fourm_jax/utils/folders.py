"""New folders that are complete or not there."""

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

from fourm_jax.utils import io


def new(directory: str | os.PathLike) -> pathlib.Path:
    """Return the path of a folder to be made.

    Raises:
      FileExistsError: something is there; nothing is overwritten.
    """
    directory = pathlib.Path(directory)
    if directory.exists():
        raise FileExistsError(f"{directory} exists; choose a new directory")
    return directory


@contextlib.contextmanager
def complete_or_absent(
    directory: str | os.PathLike, *, replace: bool = False
) -> Iterator[pathlib.Path]:
    """Yield a folder beside `directory`, which gets its name when the block ends well.

    The other name is a new one every time, so that what a kill left behind is in nobody's way.

    Args:
      replace: take the place of a folder that is there.
    """
    directory, token = pathlib.Path(directory), uuid.uuid4().hex[:8]
    partial = directory.with_name(f".{directory.name}.{token}.partial")
    replaced = directory.with_name(f".{directory.name}.{token}.replaced")
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in (*partial.rglob("*"), partial):
            io.sync(path)
        if replace and directory.exists():
            directory.rename(replaced)
        partial.rename(directory)
        io.sync(directory.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
