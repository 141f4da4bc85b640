"""Source that reads the published layout by index: one tar, or one folder of files, per modality.

    root/<split>/<modality>/shard-00000.tar      (spec page 06 §6.1)
    root/<split>/<modality>/<folder>/<name>.npy  (spec page 06 §6.3)

Members are matched by shard (or folder) and name, never by order: a member that one modality lacks
is listed, where the published reader would pair strangers or drop the rest of the shard.
"""

import pathlib
import tarfile
from collections.abc import Mapping
from typing import Any, NamedTuple

from fourm_jax.data import members

Key = tuple[str, str]  # shard or folder, name without extension


class Member(NamedTuple):
    """Where the bytes of one value lie."""

    file: pathlib.Path
    name: str
    offset: int
    size: int


def make_source(
    split: str,
    *,
    directory: str,
    modalities: Mapping[str, str],
    shards: str = "*",
    max_incomplete: int = 0,
) -> "WebDataset":
    """Index the files of some modalities of one split.

    Args:
      modalities: {record field: folder}, e.g. {"rgb": "rgb", "crops": "crop_settings"}.
      shards: pattern of the shards (without .tar) or folders to read.
      max_incomplete: how many records may lack members and are left out; `problems` lists them.

    Raises:
      ValueError: a folder that is missing or empty, a damaged tar or one with links or unsafe
        member names, a name that is there twice, too many incomplete records.
    """
    root = pathlib.Path(directory) / split
    return WebDataset(root, modalities, shards, max_incomplete)


class WebDataset:
    """Random access to the records whose members are all there."""

    def __init__(
        self,
        root: pathlib.Path,
        modalities: Mapping[str, str],
        shards: str = "*",
        max_incomplete: int = 0,
    ):
        self._index = {field: _index(root / name, shards) for field, name in modalities.items()}
        every = sorted({key for index in self._index.values() for key in index})
        self.problems: list[str] = []
        self._keys: list[Key] = []
        for key in every:
            missing = [name for field, name in modalities.items() if key not in self._index[field]]
            if missing:
                self.problems.append(f"{root}: {'/'.join(key)} has no {', '.join(missing)}")
            else:
                self._keys.append(key)
        if len(self.problems) > max_incomplete:
            shown = "; ".join(self.problems[:5])
            raise ValueError(
                f"{len(self.problems)} of {len(every)} records are incomplete, allowed: "
                f"{max_incomplete}. {shown}"
            )

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one record; ValueError naming file and member if a value is not readable."""
        record = {}
        for field, members_by_key in self._index.items():
            member = members_by_key[self._keys[index]]
            with member.file.open("rb") as file:
                file.seek(member.offset)
                data = file.read(member.size)
            try:
                record[field] = members.decode(_split_name(member.name)[1], data)
            except ValueError as error:
                raise ValueError(f"{member.file}, member {member.name!r}: {error}") from error
        return record

    def where(self, index: int) -> str:
        """Name shard and member of an index, for messages."""
        return "/".join(self._keys[index])


def _index(folder: pathlib.Path, pattern: str) -> dict[Key, Member]:
    if not folder.is_dir():
        present = sorted(path.name for path in folder.parent.glob("*"))
        raise ValueError(f"{folder}: no such modality folder; found: {present or 'nothing'}")
    index: dict[Key, Member] = {}
    for path in sorted(folder.glob(pattern + ".tar")):
        for member in _tar_members(path):
            _add(index, (path.stem, _split_name(member.name)[0]), member)
    for path in sorted(path for path in folder.glob(pattern) if path.is_dir()):
        for file in sorted(path.iterdir()):
            member = Member(file, file.name, 0, file.stat().st_size)
            _add(index, (path.name, _split_name(file.name)[0]), member)
    if not index:
        raise ValueError(f"{folder}: no shard or folder {pattern!r} with members in it")
    return index


def _add(index: dict[Key, Member], key: Key, member: Member) -> None:
    if key in index:
        raise ValueError(f"{member.file}: {'/'.join(key)} is there twice ({index[key].name!r})")
    index[key] = member


def _tar_members(path: pathlib.Path) -> list[Member]:
    size, found = path.stat().st_size, []
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                pure = pathlib.PurePosixPath(info.name)
                if pure.is_absolute() or ".." in pure.parts:
                    raise ValueError(f"{path}: unsafe member name {info.name!r}")
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    raise ValueError(f"{path}: member {info.name!r} is not a plain file")
                if info.offset_data + info.size > size:
                    raise ValueError(f"{path}: cut short within member {info.name!r}")
                found.append(Member(path, info.name, info.offset_data, info.size))
    except tarfile.TarError as error:
        raise ValueError(f"{path}: not a readable tar of {size} bytes: {error}") from error
    return found


def _split_name(name: str) -> tuple[str, str]:
    """("a/b", ".json.gz") of "a/b.json.gz": the extension starts at the first dot of the name."""
    folder, _, last = name.rpartition("/")
    stem, dot, extension = last.partition(".")
    return (f"{folder}/{stem}" if folder else stem), dot + extension.lower()
