"""Whether a job may write into a folder: a new or empty one, or one that it began itself."""

from etils import epath

from fourm_jax.data.storage import foreign_files


def check(folder: epath.PathLike, begun: str, what: str) -> None:
    """Refuse a folder that holds something else, such as a run or a data set.

    Its files may have the names of those that the job writes, and would be lost.

    Args:
      begun: the file that the job writes first.
      what: what it lacks then, for the message: "no index".

    Raises:
      ValueError: names the first thing that is there.
    """
    folder = epath.Path(folder).expanduser()
    if (folder / begun).exists() or not folder.is_dir():
        return
    for name in sorted(path.name for path in folder.iterdir()):
        if not foreign_files.is_foreign(name) and not name.startswith(begun):  # half written
            raise ValueError(f"{folder} holds {name!r} and {what}; use another --output")
