"""Files that other programs leave in data folders: nobody's data, never read, never listed."""

_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def is_foreign(name: str) -> bool:
    """Whether a file or folder name is a file manager's, an archiver's or a notebook's.

    These are hidden ones (`.DS_Store`, `._twin.npy`, `.ipynb_checkpoints`) and a few others.
    """
    return name.startswith(".") or name.lower() in _NAMES
