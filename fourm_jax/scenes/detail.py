"""Scenes in two sizes: a small picture, and what a picture of twice its side has beyond it.

A picture of 2 s pixels is the bicubic enlargement of that of s pixels plus its detail, so that a
model that predicts no detail is the enlargement, and any detail it finds is a gain.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

FACTOR = 2  # of the sides


@runtime_checkable
class Scenes(Protocol):
    """Records of scenes, one by one and batched, as `world.SceneSource` gives them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...

    def records(self, indices: Int[np.ndarray, "b"] | Sequence[int]) -> Mapping[str, Any]: ...


class DetailedSource:
    """Scenes with one more field, "detail", float32 [2 s, 2 s, 3] in -1..1 of the value range."""

    def __init__(self, source: Scenes, large: Scenes) -> None:
        """Take the same scenes from `large`, which renders pictures of twice the side."""
        self._source, self._large = source, large

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._source[index]
        return {**record, "detail": of(record["rgb"][None], self._large[index]["rgb"][None])[0]}

    def records(self, indices: Int[np.ndarray, "b"] | Sequence[int]) -> Mapping[str, Any]:
        """Batched records of `indices`, as `world.SceneSource` gives them."""
        records = self._source.records(indices)
        return {**records, "detail": of(records["rgb"], self._large.records(indices)["rgb"])}


def enlarged(pictures: UInt8[np.ndarray, "b h w 3"]) -> UInt8[np.ndarray, "b h2 w2 3"]:
    """Pictures of twice the sides, bicubic."""
    size = FACTOR * pictures.shape[2], FACTOR * pictures.shape[1]
    how = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(one).resize(size, how)) for one in pictures])


def of(
    small: UInt8[np.ndarray, "b h w 3"], large: UInt8[np.ndarray, "b h2 w2 3"]
) -> Float[np.ndarray, "b h2 w2 3"]:
    """What large pictures have beyond the enlarged small ones."""
    return ((large.astype(np.float32) - enlarged(small)) / 255).astype(np.float32)


def add(
    small: UInt8[np.ndarray, "b h w 3"], detail: Float[np.ndarray, "b h2 w2 3"]
) -> UInt8[np.ndarray, "b h2 w2 3"]:
    """Large pictures of small ones and their detail."""
    return np.clip(np.rint(enlarged(small) + 255 * detail), 0, 255).astype(np.uint8)
