"""Crop settings: integer rows (top, left, height, width, flip) that say which crops a record has.

They are in pixels of the record's pictures as stored; row 0 is the centre crop
(docs/published.md#pretokenization). Here they are drawn, checked and read, and nowhere else.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

SETTINGS = "crop_settings"  # the record field
MAX_CROPS = 256  # of a record
MAX_SIDE = 2**20  # of a picture in pixels; keeps sums of two settings within their type


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crop:
    """One crop of a record.

    Attributes:
      index: row of the crop settings.
      count: number of crops that the record has.
      rectangle: top, left, height, width in pixels.
      flip: whether the crop is mirrored left to right.
    """

    index: int
    count: int
    rectangle: tuple[int, int, int, int]
    flip: bool


def check(settings: Any, size: tuple[int, int] | None = None) -> Int[np.ndarray, "n 5"]:
    """Return crop settings as int32.

    Args:
      settings: what a record holds.
      size: (height, width) of the pictures, where it is known: crops lie inside.

    Raises:
      ValueError: not integers [n, 5] with n in 1..`MAX_CROPS`, an empty or negative rectangle, one
        outside the picture, a flip other than 0 or 1.
    """
    array = np.asarray(settings)
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] != 5 or not len(array):
        raise ValueError(
            f"{SETTINGS!r} has dtype {array.dtype} and shape {array.shape}, expected integers of "
            "shape (n, 5)"
        )
    if len(array) > MAX_CROPS:
        raise ValueError(f"{len(array)} crops, allowed: {MAX_CROPS}")
    if (array[:, :2] < 0).any() or (array[:, 2:4] < 1).any() or (array[:, 4] >> 1).any():
        raise ValueError(
            f"{SETTINGS!r} is {array.tolist()}, expected rows of top, left >= 0, height, "
            "width >= 1, flip 0 or 1"
        )
    limits = size or (MAX_SIDE, MAX_SIDE)
    # In any integer type a value of its own may be out of range, and a sum of two overflow.
    too_large = (array > MAX_SIDE).any()
    array = array.astype(np.int64)
    if too_large or (array[:, :2] + array[:, 2:4] > limits).any():
        raise ValueError(f"crops {array.tolist()} are not all inside a picture of {limits}")
    return array.astype(np.int32)


def crop_at(settings: Int[np.ndarray, "n 5"], index: int) -> Crop:
    """The crop of one row."""
    top, left, height, width, flip = settings[index].tolist()
    rectangle = (top, left, height, width)
    return Crop(index=index, count=len(settings), rectangle=rectangle, flip=bool(flip))


def choose(record: Mapping[str, Any], draw: float) -> Crop | None:
    """The crop of a record that a number in [0, 1) draws; None if it holds no crops.

    Raises:
      ValueError: see `check`.
    """
    if SETTINGS not in record:
        return None
    settings = check(record[SETTINGS])
    return crop_at(settings, int(draw * len(settings)))


def centre(size: tuple[int, int]) -> Int[np.ndarray, "1 5"]:
    """Settings of one crop: the largest centred square of pictures of (height, width)."""
    height, width = size
    side = min(size)
    return np.array([[(height - side) // 2, (width - side) // 2, side, side, 0]], np.int32)


def unknown(num_crops: int) -> Int[np.ndarray, "n 5"]:
    """Settings of crops that nobody wrote down, of records without pictures: one pixel each."""
    return np.tile(np.array([0, 0, 1, 1, 0], np.int32), (num_crops, 1))


def sample(
    rng: np.random.Generator,
    size: tuple[int, int],
    num_crops: int,
    *,
    scale: tuple[float, float] = (0.8, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip_probability: float = 0.5,
) -> Int[np.ndarray, "n 5"]:
    """Draw the crop settings of one record.

    Row 0 is the largest centred square, not mirrored; the others are RandomResizedCrops.

    Args:
      rng: host generator.
      size: (height, width) of the pictures.
      num_crops: rows, at least 1.
      scale: range of a crop's share of the area.
      ratio: range of width / height, uniform in the logarithm.
      flip_probability: of a random crop.
    """
    if num_crops < 1 or min(size) < 1:
        raise ValueError(f"{num_crops} crops of size {size}, allowed: both at least 1")
    rows = []
    for _ in range(num_crops - 1):
        rectangle = _random_rectangle(rng, size, scale, ratio)
        rows.append((*rectangle, int(rng.random() < flip_probability)))
    return np.concatenate([centre(size), np.array(rows, np.int32).reshape(-1, 5)])


def _random_rectangle(
    rng: np.random.Generator,
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Ten tries, then the largest centred rectangle of an allowed ratio (as in torchvision)."""
    height, width = size
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return int(top), int(left), h, w
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    return (height - h) // 2, (width - w) // 2, h, w
