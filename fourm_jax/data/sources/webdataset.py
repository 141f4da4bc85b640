"""Source that reads the published layout by index: one tar, or one folder of files, per modality.

    root/<split>/<modality>/shard-00000.tar      (docs/published.md#data-layout)
    root/<split>/<modality>/<folder>/<name>.npy  (docs/published.md#data-layout)
    root/<split>/<modality>/<name>.npy

Members are matched by shard (or folder) and name, never by order: a member that one modality lacks
is listed, where the published reader would pair strangers or drop the rest of the shard.

Values are what the files hold, but for label maps: the published ones store class c as c and no
class as 255, and everything here counts from 0 = no class (docs/published.md#modalities).
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from fourm_jax.data.published import layout
from fourm_jax.data.published.layout import Member
from fourm_jax.data.storage.left_out import LeftOutRecord, RecordError
from fourm_jax.modalities import label_maps as label_maps_lib

Key = tuple[str, str]  # shard or folder, name without extension


def make_source(
    split: str,
    *,
    directory: str | os.PathLike[str],
    modalities: Mapping[str, str],
    shards: str = "*",
    max_incomplete: int = 0,
    label_maps: Collection[str] = label_maps_lib.FOLDERS,
) -> "WebDataset":
    """Index the files of some modalities of one split.

    Args:
      modalities: {record field: folder}, e.g. {"rgb": "rgb", "crop_settings": "crop_settings"}.
      shards: pattern of the shards (without .tar) or folders to read.
      max_incomplete: how many records may lack files and are left out; `left_out` lists them.
      label_maps: folders of pictures that store class c as c and no class as 255: they are read as
        c + 1 and 0. What lies in other folders is read as it is.

    Raises:
      ValueError: a folder that is missing or empty, a damaged tar or one with links or unsafe
        member names, a name that is there twice, too many incomplete records.
    """
    root = pathlib.Path(directory) / split
    return WebDataset(root, modalities, shards, max_incomplete, label_maps)


class WebDataset:
    """Random access to the records whose files are all there."""

    def __init__(
        self,
        root: pathlib.Path,
        modalities: Mapping[str, str],
        shards: str = "*",
        max_incomplete: int = 0,
        label_maps: Collection[str] = label_maps_lib.FOLDERS,
    ) -> None:
        self._label_maps = frozenset(f for f, name in modalities.items() if name in label_maps)
        self._index = {field: _index(root / name, shards) for field, name in modalities.items()}
        every = sorted({key for index in self._index.values() for key in index})
        self.left_out: list[LeftOutRecord] = []
        self._keys: list[Key] = []
        for key in every:
            missing = [name for field, name in modalities.items() if key not in self._index[field]]
            if missing:
                message = f"{layout.record_name(*key)} has no {', '.join(missing)}"
                self.left_out.append(
                    LeftOutRecord(
                        place=str(root),
                        record=layout.record_name(*key),
                        reason="missing_member",
                        message=message,
                    )
                )
            else:
                self._keys.append(key)
        if len(self.left_out) > max_incomplete:
            shown = "; ".join(map(str, self.left_out[:5]))
            raise ValueError(
                f"{len(self.left_out)} of {len(every)} records are incomplete, allowed: "
                f"{max_incomplete}. {shown}"
            )

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one record; ValueError naming file and member if a value is not readable."""
        key = self._keys[index]
        return {field: self._read(field, by_key[key]) for field, by_key in self._index.items()}

    @property
    def content(self) -> str:
        """Changes with names and sizes of the files, and with how they are read."""
        digest = hashlib.sha256()
        for field, by_key in self._index.items():
            digest.update(json.dumps([field, field in self._label_maps]).encode())
            for key in self._keys:
                digest.update(json.dumps([*key, by_key[key].name, by_key[key].size]).encode())
        return digest.hexdigest()

    def _read(self, field: str, member: Member) -> Any:
        value = layout.read_value(member)
        if field not in self._label_maps:
            return value
        try:
            return label_maps_lib.labels(value)
        except ValueError as error:
            message = f"{member.file}, member {member.name!r}: {error}"
            raise RecordError("wrong_type", message) from error

    def place(self, index: int) -> str:
        """Name shard and member of an index, for messages."""
        return layout.record_name(*self._keys[index])


def _index(folder: pathlib.Path, pattern: str) -> dict[Key, Member]:
    index: dict[Key, Member] = {}
    shards = layout.list_shards(folder, pattern)
    if pattern == "*":
        layout.announce_unread(folder, shards)
    for shard in shards:
        found = layout.index_shard(folder, shard)
        if found.left_out:
            more = f" ({len(found.left_out) - 1} more)" if len(found.left_out) > 1 else ""
            raise ValueError(f"{found.left_out[0]}{more}")
        index.update({(shard, key): member for key, member in found.files.items()})
    if not index:
        raise ValueError(f"{folder}: no shard or folder {pattern!r} with files in it")
    return index
