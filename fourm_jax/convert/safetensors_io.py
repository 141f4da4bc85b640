"""Safetensors files from strangers: everything is checked before any number is read.

Nothing is ever unpickled. Tensors are read one at a time and written one at a time, so that a
file larger than memory passes through.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import yaml

DTYPES = {
    "F64": np.dtype(np.float64), "F32": np.dtype(np.float32), "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16), "I64": np.dtype(np.int64), "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16), "I8": np.dtype(np.int8), "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}  # fmt: skip
LARGEST_HEADER = 100_000_000  # bytes, as the format's own reader allows
LONGEST_METADATA = 10_000  # characters per value that are given to the YAML parser


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: dtype, shape and its bytes [start, end) of the file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int


class SafeFile:
    """A validated file: `names`, `metadata` (strings), and `read(name)`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a pickle or another format, a header that is too long, truncated or no JSON, an
        unknown dtype, a wrong shape, offsets that overlap, leave holes or exceed the file.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self.tensors, self.metadata = _checked_header(self.path)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.tensors)

    def read(self, name: str) -> np.ndarray:
        """One tensor, copied from the file: a memory map would keep all that was read resident.

        Raises:
          ValueError: no tensor of this name.
        """
        if name not in self.tensors:
            raise ValueError(f"{self.path}: no tensor {name!r}")
        info = self.tensors[name]
        data = np.fromfile(self.path, np.uint8, info.end - info.start, offset=info.start)
        return data.view(info.dtype).reshape(info.shape)


class Tensors(Mapping):
    """The tensors of a file by name, each read when it is asked for."""

    def __init__(self, file: SafeFile):
        self._file = file

    def __getitem__(self, name: str) -> np.ndarray:
        return self._file.read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._file.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.tensors)

    def __len__(self) -> int:
        return len(self._file.tensors)


def parse_metadata(metadata: Mapping[str, str], path: Any = "metadata") -> dict[str, Any]:
    """Parse config values that were written as Python reprs, with a safe YAML parser.

    >>> parse_metadata({"dim": "768", "norm": "None", "names": "['a', 'b']"})
    {'dim': 768, 'norm': None, 'names': ['a', 'b']}

    Raises:
      ValueError: a value longer than 10,000 characters, or one that is no YAML.
    """
    parsed = {}
    for key, value in metadata.items():
        if len(value) > LONGEST_METADATA:
            raise ValueError(
                f"{path}: metadata {key!r} has {len(value)} characters, allowed: {LONGEST_METADATA}"
            )
        try:
            parsed[key] = yaml.safe_load(value.replace("None", "null"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: metadata {key!r} cannot be parsed: {error}") from error
    return parsed


def write(
    path: str | os.PathLike,
    tensors: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    arrays: Iterable[tuple[str, np.ndarray]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file atomically: the header from `tensors`, then `arrays` as they come.

    Args:
      path: replaced only after the last tensor was written.
      tensors: {name: (dtype, shape)} of all that will come, in any order.
      arrays: each tensor once, as (name, array).
      metadata: strings for the header.

    Raises:
      ValueError: an array that was not announced, differs from its announcement or never came.
    """
    path, names = pathlib.Path(path), {dtype: name for name, dtype in DTYPES.items()}
    header, starts, position = ({"__metadata__": dict(metadata)} if metadata else {}), {}, 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * np.dtype(dtype).itemsize
        offsets = [position, position + size]
        header[name] = {
            "dtype": names[np.dtype(dtype)],
            "shape": list(shape),
            "data_offsets": offsets,
        }
        starts[name], position = position, position + size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, array in arrays:
                if name not in starts or (array.dtype, array.shape) != tensors[name]:
                    raise ValueError(
                        f"{path}: tensor {name!r} {array.dtype}{array.shape} was not announced"
                    )
                file.seek(8 + len(text) + starts.pop(name))
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            if starts:
                raise ValueError(f"{path}: tensors {sorted(starts)} were announced but never came")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _checked_header(path: pathlib.Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start, brace = file.read(8), file.read(1)
        # a header may be 128 bytes long, too: its ninth byte is the brace that opens it
        if brace != b"{" and (start[:1] == b"\x80" or start[:4] == b"PK\x03\x04"):
            raise ValueError(
                f"{path}: this is a pickle (.pth, .pt, .bin), which can run code when it is read; "
                "only safetensors files are accepted"
            )
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(LARGEST_HEADER, size - 8):
            raise ValueError(
                f"{path}: no safetensors file, or a truncated one: header of {length} bytes in a "
                f"file of {size}"
            )
        text = (brace + file.read(max(length - 1, 0)))[:length]
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", {})
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: the header is no JSON object: {error}") from error
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError(f"{path}: __metadata__ must map names to strings")
    tensors = {name: _checked_tensor(path, name, entry) for name, entry in header.items()}
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            raise ValueError(
                f"{path}: tensor {name!r} starts at byte {info.start} of the data, expected "
                f"{position} (tensors must neither overlap nor leave holes)"
            )
        position = info.end
    if 8 + length + position != size:
        raise ValueError(
            f"{path}: truncated or oversized: the header describes {8 + length + position} bytes, "
            f"the file has {size}"
        )
    base = 8 + length
    return {
        name: dataclasses.replace(info, start=base + info.start, end=base + info.end)
        for name, info in tensors.items()
    }, metadata


def _checked_tensor(path: pathlib.Path, name: str, entry: Any) -> TensorInfo:
    """Entry of the header, with offsets relative to the data."""
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: tensor {name!r}: broken header entry {entry!r}") from error
    if dtype not in DTYPES:
        raise ValueError(f"{path}: tensor {name!r}: dtype {dtype!r}, allowed: {sorted(DTYPES)}")
    numbers = [*shape, start, end] if isinstance(shape, list) else [None]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{path}: tensor {name!r}: broken header entry {entry!r}")
    expected = math.prod(shape) * DTYPES[dtype].itemsize
    if end - start != expected:
        raise ValueError(
            f"{path}: tensor {name!r}: {end - start} bytes, but {dtype} {shape} needs {expected}"
        )
    return TensorInfo(DTYPES[dtype], tuple(shape), start, end)
