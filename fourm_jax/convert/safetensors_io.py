"""Safetensors files: read tensor by tensor by the library, written tensor by tensor by us.

A file larger than memory passes through; the library can only write what is in memory as a whole.
Nothing is ever unpickled.
"""

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import yaml

from fourm_jax.utils import io, plain_data, safetensors_header

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
INDEX = ".safetensors.index.json"  # ending of the list of several files
_PART = re.compile(r"[\w.-]+\.safetensors")
_INDEX_RULES = {
    "weight_map": plain_data.dict_of(
        plain_data.Rule(
            "a .safetensors file beside it",
            lambda name: isinstance(name, str) and bool(_PART.fullmatch(name)),
        )
    )
}
LONGEST_METADATA = 10_000  # characters per value that are given to the YAML parser, which is slow
MOST_METADATA = 100_000  # of all values together


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Type and shape of one tensor, known before it is read."""

    dtype: np.dtype
    shape: tuple[int, ...]


class SafeFile:
    """A file of the format: `names`, `tensors` {name: TensorInfo}, `metadata` and `read(name)`.

    The library checks the header (its length, JSON, shapes, and offsets that overlap, leave holes
    or exceed the file); what would cost it too much is refused before.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a pickle, no sound safetensors file, or a dtype without a NumPy type.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        _refuse_pickles(self.path)
        _check_header(self.path)
        with self._open() as file:
            self.metadata: dict[str, str] = file.metadata() or {}
            names = file.keys()  # the object itself cannot be iterated
            self.tensors = {name: self._info(name, file.get_slice(name)) for name in names}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.tensors)

    def read(self, name: str) -> np.ndarray:
        """One tensor. The file is opened again: its memory map would keep what was read resident.

        Raises:
          ValueError: no tensor of this name.
        """
        if name not in self.tensors:
            raise ValueError(f"{self.path}: no tensor {name!r}")
        with self._open() as file:
            return file.get_tensor(name)

    def _open(self) -> safetensors.safe_open:
        try:
            return safetensors.safe_open(self.path, framework="numpy")
        except safetensors.SafetensorError as error:
            raise ValueError(f"{self.path}: no sound safetensors file: {error}") from error

    def _info(self, name: str, tensor: Any) -> TensorInfo:
        dtype = tensor.get_dtype()
        if dtype not in DTYPES:
            raise ValueError(
                f"{self.path}: tensor {name!r}: dtype {dtype!r}, allowed: {sorted(DTYPES)}"
            )
        return TensorInfo(DTYPES[dtype], tuple(tensor.get_shape()))


class SafeParts(SafeFile):
    """Weights in several files, as the Hub's tools save large models, read through their index.

    Raises:
      FileNotFoundError: the index or a part is not there.
      ValueError: as `SafeFile`, for the index or a part; the index does not list what they hold.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        index = io.read_json(self.path)
        plain_data.check(index, _INDEX_RULES, self.path, required=_INDEX_RULES)
        places = index["weight_map"]
        parts = {file: SafeFile(self.path.with_name(file)) for file in sorted({*places.values()})}
        held = {name: file for file, part in parts.items() for name in part.names}
        if held != places or sum(len(part.names) for part in parts.values()) != len(held):
            wrong = sorted({*held.items()} ^ {*places.items()})[:3]
            raise ValueError(f"{self.path} does not list what its parts hold, first: {wrong}")
        self._parts = {name: parts[file] for name, file in held.items()}
        self.metadata = {}
        self.tensors = {name: part.tensors[name] for name, part in self._parts.items()}

    def read(self, name: str) -> np.ndarray:
        """One tensor.

        Raises:
          ValueError: no tensor of this name.
        """
        if name not in self.tensors:
            raise ValueError(f"{self.path}: no tensor {name!r}")
        return self._parts[name].read(name)


def open_weights(path: str | os.PathLike) -> SafeFile:
    """Open a file, or the parts that an index lists."""
    return SafeParts(path) if str(path).endswith(INDEX) else SafeFile(path)


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


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("aliases are not allowed")
        return super().compose_node(parent, index)


def parse_metadata(metadata: Mapping[str, str], path: Any = "metadata") -> dict[str, Any]:
    """Parse config values that were written as Python reprs, with a safe YAML parser.

    >>> parse_metadata({"dim": "768", "norm": "None", "names": "['a', 'b']"})
    {'dim': 768, 'norm': None, 'names': ['a', 'b']}

    Raises:
      ValueError: a value longer than 10,000 characters or all longer than 100,000, one that is no
        YAML, or one with aliases, which a few lines can blow up to gigabytes.
    """
    size = sum(map(len, metadata.values()))
    if size > MOST_METADATA:
        raise ValueError(f"{path}: metadata of {size} characters, allowed: {MOST_METADATA}")
    parsed = {}
    for key, value in metadata.items():
        if len(value) > LONGEST_METADATA:
            raise ValueError(
                f"{path}: metadata {key!r} has {len(value)} characters, allowed: {LONGEST_METADATA}"
            )
        try:
            parsed[key] = yaml.load(value.replace("None", "null"), _PlainLoader)
            io.check_depth(parsed[key])
        except Exception as error:  # the parser raises whatever its constructors do
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
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    starts, position = {}, 0
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


def _check_header(path: pathlib.Path) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(safetensors_header.LENGTH_BYTES), "little")
        text = file.read(min(length, io.MAX_JSON_BYTES + 1))
    if length <= path.stat().st_size - safetensors_header.LENGTH_BYTES:  # else the library says so
        safetensors_header.check(text, f"{path}: no sound safetensors file")


def _refuse_pickles(path: pathlib.Path) -> None:
    with path.open("rb") as file:
        start, brace = file.read(8), file.read(1)
    # a header may be 128 bytes long, too: its ninth byte is the brace that opens it
    if brace != b"{" and (start[:1] == b"\x80" or start[:4] == b"PK\x03\x04"):
        raise ValueError(
            f"{path}: this is a pickle (.pth, .pt, .bin), which can run code when it is read; "
            "only safetensors files are accepted"
        )
