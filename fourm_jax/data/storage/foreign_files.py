"""Files in data folders that are not read: those of other programs, and those in a wrong place.

What file managers, archivers and notebooks leave there is nobody's data, never read, never listed.
What may be somebody's data is told of.
"""

import os
from collections.abc import Sequence

from fourm_jax.utils import progress

_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def is_foreign(name: str) -> bool:
    """Whether a file or folder name is a file manager's, an archiver's or a notebook's.

    These are hidden ones (`.DS_Store`, `._twin.npy`, `.ipynb_checkpoints`) and a few others.
    """
    return name.startswith(".") or name.lower() in _NAMES


def announce_unread(folder: os.PathLike | str, names: Sequence[str], why: str) -> None:
    """Say in one line how many files are not read, one of them, and why; nothing where none are."""
    if names:
        count = f"{len(names):,} file{'s' if len(names) > 1 else ''}"
        progress.announce(f"{folder}: {count} not read, such as {names[0]!r}: {why}")
