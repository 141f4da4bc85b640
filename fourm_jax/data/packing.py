"""A batch in one block of memory, for the way from one process to another.

Every array that crosses takes a block of shared memory of its own, whose pages of 4 KiB the kernel
makes one by one: there a byte of padding costs as much as a byte of content, several times what a
copy costs. So the arrays of a batch share one block, and embeddings travel without their padding.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from fourm_jax.data import blocks

_ALIGNMENT = 64  # bytes; what lies so is taken by XLA on a CPU without a copy


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where an array of a batch lies in the block.

    Attributes:
      entry, name: batch[entry][name], or batch[entry] where the name is empty.
      ragged: only the rows within `length` of its entry are there.
    """

    entry: str
    name: str
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype
    ragged: bool


class PackedBatch(NamedTuple):
    """A batch as `pack` makes it."""

    block: UInt8[np.ndarray, "n"]
    places: list[_Place]


def pack(batch: Mapping[str, Any]) -> PackedBatch:
    """Copy a batch, {entry: array} or {entry: {name: array}}, into one block."""
    places: list[_Place] = []
    end = 0
    for entry, name, array in _arrays(batch):
        ragged = name == "embeddings"
        place = _Place(entry, name, end, array.shape, array.dtype, ragged)
        count = int(batch[entry]["length"].sum()) * array[0, 0].nbytes if ragged else array.nbytes
        end += -(-count // _ALIGNMENT) * _ALIGNMENT
        places.append(place)
    block = np.empty(end, np.uint8)
    for place, (entry, _, array) in zip(places, _arrays(batch), strict=True):
        if place.ragged:
            for row, part in _rows(block, place, batch[entry]["length"]):
                part[...] = array[row, : len(part)]
        else:
            _view(block, place.start, place.shape, place.dtype)[...] = array
    return PackedBatch(block, places)


def unpack(packed: PackedBatch) -> dict[str, Any]:
    """The batch again: embeddings are padded with zeros, all others are views of the block."""
    block = packed.block.view(np.ndarray)
    batch: dict[str, Any] = {}
    for place in packed.places:
        if place.ragged:
            array, lengths = blocks.empty(place.shape, place.dtype), batch[place.entry]["length"]
            for row, part in _rows(block, place, lengths):
                array[row, : len(part)] = part
            blocks.clear_padding(array, lengths)
        else:
            array = _view(block, place.start, place.shape, place.dtype)
        if place.name:
            batch.setdefault(place.entry, {})[place.name] = array
        else:
            batch[place.entry] = array
    return batch


def _arrays(batch: Mapping[str, Any]) -> Iterator[tuple[str, str, np.ndarray]]:
    """(entry, name, array) of a batch; lengths come before what they are the lengths of."""
    for entry, value in batch.items():
        if isinstance(value, Mapping):
            for name in sorted(value, key=lambda name: name == "embeddings"):
                yield entry, name, value[name]
        else:
            yield entry, "", value


def _rows(
    block: UInt8[np.ndarray, "n"], place: _Place, lengths: Shaped[np.ndarray, "b"]
) -> Iterator[tuple[int, np.ndarray]]:
    """(row, its vectors in the block) of all rows."""
    start = place.start
    for row, count in enumerate(lengths.tolist()):
        part = _view(block, start, (count, *place.shape[2:]), place.dtype)
        yield row, part
        start += part.nbytes


def _view(
    block: UInt8[np.ndarray, "n"], start: int, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    return np.ndarray(shape, dtype, block, start)
