"""ArrayRecord shards of one data set: layout, manifest, checks, and random access by index.

A data set is one folder with, for each split, `<split>-00000-of-00004.array_record` … and
`<split>.json` (the manifest: recipe, schema of the fields, records and bytes of every shard).
`shard_writer.py` writes them.
"""

import bisect
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
import resource
from collections.abc import Mapping
from typing import Any

from array_record.python import array_record_module
from etils import epath

from fourm_jax.data.storage import records
from fourm_jax.utils import io, plain_data, storage_errors

VERSION = 1
FILE_NAME = re.compile(r"[\w-]+\.array_record")
RULES: Mapping[str, plain_data.Rule] = {
    "version": plain_data.integer(VERSION, VERSION),
    "recipe": plain_data.DICT,
    "fields": plain_data.dict_of(plain_data.DICT),
    "shards": plain_data.list_of(plain_data.DICT, 10**6),
}
SHARD_RULES: Mapping[str, plain_data.Rule] = {
    "file": plain_data.Rule(
        "the name of a file in this folder",
        lambda name: isinstance(name, str) and bool(FILE_NAME.fullmatch(name)),
    ),
    "num_records": plain_data.integer(0, 2**48),
    "bytes": plain_data.integer(0, 2**62),
}
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_MOST_OPEN = 1024  # shards that a process holds open


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a finished split holds.

    Attributes:
      recipe: how the split was made (JSON values); splits with equal recipes are equal.
      fields: {field: {"dtype", "shape", …}} of what the records hold; "shape" is that of the first
        record with this field; token fields also say "vocab_size", "kind" and "tokenizer", and
        these alone where no record of the split has the field.
      shards: ({"file", "num_records", "bytes", "sha256"}, …) in order.
    """

    recipe: Mapping[str, Any]
    fields: Mapping[str, Mapping[str, Any]]
    shards: tuple[Mapping[str, Any], ...]

    @property
    def num_records(self) -> int:
        return sum(shard["num_records"] for shard in self.shards)


def shard_path(directory: epath.PathLike, split: str, index: int, count: int) -> epath.Path:
    """Path of one shard: `<directory>/<split>-00000-of-00004.array_record`."""
    if not re.fullmatch(r"\w+", split):
        raise ValueError(f"split {split!r}, allowed: letters, digits and '_'")
    return epath.Path(directory) / f"{split}-{index:05d}-of-{count:05d}.array_record"


def manifest_path(directory: epath.PathLike, split: str) -> epath.Path:
    """Path of the manifest of one split."""
    return epath.Path(directory) / f"{split}.json"


def read_manifest(directory: epath.PathLike, split: str) -> Manifest:
    """Read the manifest of one split.

    Raises:
      ValueError: no such folder, split or manifest (lists what is there), or a broken one.
    """
    path = manifest_path(directory, split)
    if not path.exists():
        present = sorted(p.stem for p in path.parent.glob("*.json")) if path.parent.exists() else []
        raise ValueError(
            f"{path}: no such split; found here: {present or 'nothing'}. A split without its "
            "manifest is not finished: run the command that writes it again"
        )
    content, where = io.read_json(path), f"{path}: not the manifest of a split"
    plain_data.check(content, RULES, where, required=RULES)
    for shard in content["shards"]:
        plain_data.check(shard, SHARD_RULES, where, required=SHARD_RULES)
    return Manifest(
        recipe=content["recipe"], fields=content["fields"], shards=tuple(content["shards"])
    )


class Reader:
    """Random access to the records of one split, by index, from any thread or process."""

    def __init__(self, directory: epath.PathLike, split: str) -> None:
        """Open a split and check every shard against the manifest.

        Raises:
          ValueError: a shard that is missing, empty, cut short or has another number of records;
            names file, expected and found.
        """
        self.directory, self.split = epath.Path(directory), split
        self.manifest = read_manifest(directory, split)
        if not self.manifest.num_records:
            raise ValueError(f"{manifest_path(directory, split)}: the split has no records")
        for shard in self.manifest.shards:
            _check_shard(self.directory, shard)
        self._files = [os.fspath(self.directory / s["file"]) for s in self.manifest.shards]
        self._contents = [str(s.get("sha256", s["bytes"])) for s in self.manifest.shards]
        self._ends = list(itertools.accumulate(s["num_records"] for s in self.manifest.shards))

    @property
    def fields(self) -> Mapping[str, Mapping[str, Any]]:
        """Schema of the records, see `Manifest`."""
        return self.manifest.fields

    @property
    def content(self) -> str:
        """Digest of the shards: another one if any record is another."""
        digests = [shard.get("sha256") for shard in self.manifest.shards]
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> records.Record:
        """Return one record.

        Raises:
          ValueError: its bytes are damaged; names file and record.
          StorageError: they are not readable at the moment; names the file.
        """
        shard, position = self._locate(index)
        file = self._files[shard]
        try:
            written = file, self._contents[shard], position
            return records.decode(storage_errors.retried(_read, *written, file=file))
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{self.place(index)}: {error}") from error

    def place(self, index: int) -> str:
        """Name file and record of an index, for messages."""
        shard, position = self._locate(index)
        return f"{self._files[shard]}, record {position}"

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {self.split!r}, allowed: 0..{len(self) - 1}")
        shard = bisect.bisect_right(self._ends, index)
        return shard, int(index) - (self._ends[shard - 1] if shard else 0)


def _most_open() -> int:
    """Shards that may stay open: half of the files that this process may have, or `_MOST_OPEN`.

    Linux often allows 1,024 files, macOS 256, and a data set may have thousands of shards.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_OPEN if allowed == resource.RLIM_INFINITY else min(_MOST_OPEN, allowed // 2)


@functools.lru_cache(maxsize=_most_open())
def _open(file: str, content: str) -> array_record_module.ArrayRecordReader:
    # Cached beside the Reader, not in it: worker processes get the Reader pickled. By content, as
    # a notebook may write a folder anew and read it again.
    del content
    return array_record_module.ArrayRecordReader(
        file, READER_OPTIONS, file_reader_buffer_size=2**15
    )


def _read(file: str, content: str, position: int) -> bytes:
    try:
        return _open(file, content).read([position])[0]
    except RuntimeError as error:
        if storage_errors.is_transient(error):
            _open.cache_clear()  # a reader that failed to open its file stays so
        raise


def _check_shard(directory: epath.Path, shard: Mapping) -> None:
    path = directory / shard["file"]
    if not path.exists():
        raise ValueError(f"{path}: shard is missing, expected {shard['num_records']} records")
    size = path.stat().length
    if size != shard["bytes"]:
        state = "is cut short or was changed" if size else "is empty"
        raise ValueError(f"{path}: shard {state}: expected {shard['bytes']} bytes, found {size}")
    expected = f"{path}: expected {shard['num_records']} records"
    reader = array_record_module.ArrayRecordReader(os.fspath(path), READER_OPTIONS)
    found = reader.num_records()
    try:
        reader.close()
    except RuntimeError as error:
        raise ValueError(f"{expected}, found a damaged file: {error}") from error
    if found != shard["num_records"]:
        raise ValueError(f"{expected}, found {found}")
