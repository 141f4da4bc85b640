"""New folders that are complete or not there."""

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator


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
def complete_or_absent(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a folder beside `directory`, which gets its name when the block ends well.

    The other name is a new one every time, so that what a kill left behind is in nobody's way.
    """
    partial = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
