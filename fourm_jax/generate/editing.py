"""Keeping part of a picture or map: masks of pixels and tokens, and decoding without a seam."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Num

from fourm_jax.generate import fitting
from fourm_jax.generate.conditions import Entry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers.signal import Signal
from fourm_jax.utils import picture_files

MARGIN = 3  # pixels inside a mask over which old and new are mixed
MASK = Signal(axes="hw", dtype="uint8", kind="binary", low=0, high=1)

Mask = Any  # bool [h, w] or [b, h, w], True = generate anew; or the path of a picture, white = anew


def pixel_mask(mask: Mask, spec: ModalitySpec, size: tuple[int, int]) -> Bool[np.ndarray, "b h w"]:
    """A mask as bool [b, h, w] of the size that the modality is read in; b may be 1.

    Args:
      mask: of the picture before it is cropped and resized, of `size`, or of the token grid.

    Raises:
      ValueError: no mask, or one that marks nothing.
    """
    if isinstance(mask, str | os.PathLike):
        mask = fitting.read_picture(mask, spec, MASK)
    array = np.asarray(mask)
    if array.dtype.kind not in "bui" or array.ndim not in (2, 3):
        raise ValueError(
            f"mask of {spec.name!r}: {array.dtype} {list(array.shape)}, allowed: bool [h, w] or "
            "one per row, True where it is generated anew"
        )
    rows = array[None] if array.ndim == 2 else array
    labels = spec.replace(crop="labels")
    if rows.shape[1:] == spec.grid:
        rows = expanded(rows, size)
    fitted = np.stack([fitting.fit(row, labels, MASK, size) for row in rows]).astype(bool)
    if not fitted.any():
        raise ValueError(f"mask of {spec.name!r} marks nothing: True where it is generated anew")
    return fitted


def parse_mask(text: str, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The mask of a picture of (height, width) as it is typed: a file, or "xmin,ymin,xmax,ymax".

    Raises:
      ValueError: neither.
    """
    try:
        box = [float(part) for part in text.split(",")]
    except ValueError:
        box = []
    if len(box) == 4:
        return box_mask([box], size)
    if box or not pathlib.Path(text).is_file():
        raise ValueError(f"mask {text!r}, allowed: a picture file, or xmin,ymin,xmax,ymax in 0..1")
    values = picture_files.decode_values(text)
    grey = values if values.ndim == 2 else picture_files.grey(values)
    return grey > np.iinfo(grey.dtype).max // 2


def read(value: Any, spec: ModalitySpec) -> np.ndarray:
    """The array of one picture or map that is given as a condition, before it is fitted.

    Raises:
      ValueError: token ids, or a file that cannot be read.
    """
    if isinstance(value, str | os.PathLike):
        value = fitting.read_picture(value, spec, Signal(axes="hwc", num_channels=3))
    array = np.asarray(value)
    if array.ndim not in (2, 3):
        raise ValueError(f"{spec.name}: {array.ndim} axes, allowed: a picture or map")
    return array


def expanded(
    cells: Num[np.ndarray, "b r c"] | Bool[np.ndarray, "b r c"], size: tuple[int, int]
) -> np.ndarray:
    """Values of cells for each of their pixels."""
    height, width = size[0] // cells.shape[1], size[1] // cells.shape[2]
    return cells.repeat(height, axis=1).repeat(width, axis=2)


def open_cells(
    mask: Bool[np.ndarray, "b h w"], grid: tuple[int, int]
) -> Bool[np.ndarray, "b cells"]:
    """Cells of a grid of which any pixel is masked, in the order of tokens."""
    num_rows, height, width = mask.shape
    parts = mask.reshape(num_rows, grid[0], height // grid[0], grid[1], width // grid[1])
    return parts.any(axis=(2, 4)).reshape(num_rows, -1)


def box_mask(boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Mask of boxes (xmin, ymin, xmax, ymax as shares 0..1), every touched pixel or cell."""
    mask = np.zeros(size, bool)
    height, width = size
    for xmin, ymin, xmax, ymax in boxes:
        if not (0 <= xmin < xmax <= 1 and 0 <= ymin < ymax <= 1):
            raise ValueError(
                f"box {[xmin, ymin, xmax, ymax]}, allowed: xmin < xmax and ymin < ymax in 0..1"
            )
        rows = slice(int(ymin * height), int(np.ceil(ymax * height)))
        mask[rows, int(xmin * width) : int(np.ceil(xmax * width))] = True
    return mask


def shifted(
    picture: Num[np.ndarray, "h w *c"], rows: int, columns: int
) -> tuple[Num[np.ndarray, "h w *c"], Bool[np.ndarray, "h w"]]:
    """A picture moved down and right (negative: up and left), and the mask of what is new.

    For out-painting: what comes in from outside repeats the edge until it is generated.

    Raises:
      ValueError: nothing of the picture would be left, or it would not move.
    """
    height, width = picture.shape[:2]
    if not (abs(rows) < height and abs(columns) < width and (rows or columns)):
        raise ValueError(
            f"shift by {rows} rows and {columns} columns of a picture {height} x {width}, allowed: "
            "less than its sides, and not nothing"
        )
    from_row, from_column = np.arange(height) - rows, np.arange(width) - columns
    moved = picture[np.clip(from_row, 0, height - 1)][:, np.clip(from_column, 0, width - 1)]
    inside_rows = (from_row >= 0) & (from_row < height)
    inside_columns = (from_column >= 0) & (from_column < width)
    return moved, ~(inside_rows[:, None] & inside_columns)


def keep(spec: ModalitySpec, entry: Entry, mask: Bool[np.ndarray, "b h w"]) -> Entry:
    """The entry of a grid or of pixels of which the masked cells are not known."""
    known = ~open_cells(mask, spec.grid)
    content = "ids" if "ids" in entry else "pixels"
    array = np.asarray(entry[content])
    return {content: array, "known": np.broadcast_to(known, (len(array), known.shape[1]))}


def blend(
    old: Num[np.ndarray, "b ..."],
    new: Num[np.ndarray, "b ..."],
    mask: Bool[np.ndarray, "b h w"],
    signal: Signal,
    margin: int = MARGIN,
) -> Num[np.ndarray, "b ..."]:
    """`new` inside the mask and exactly `old` outside, without a seam inside its edge.

    Args:
      old, new: decoded pictures or maps, [b, h, w] or [b, h, w, c]; classes are not mixed.
      margin: pixels over which continuous values go from old to new.
    """
    mask = np.broadcast_to(mask, (len(old), *mask.shape[1:]))
    weight: np.ndarray = mask.astype(np.float32)
    if signal.kind == "continuous":
        weight = _depth(mask, margin) / margin
    weight = weight.reshape(weight.shape + (1,) * (old.ndim - 3))
    mixed = old + weight * (new.astype(np.float32) - old)
    if signal.unit:
        mixed = mixed / np.maximum(np.linalg.norm(mixed, axis=-1, keepdims=True), 1e-6)
    if old.dtype.kind in "iu":
        mixed = np.rint(mixed)
    inside = np.broadcast_to(weight > 0, old.shape)
    return np.where(inside, mixed.astype(old.dtype), old)


def _depth(mask: Bool[np.ndarray, "b h w"], most: int) -> Int[np.ndarray, "b h w"]:
    """How many pixels each masked one lies inside the mask, at most `most`; borders of the picture
    are no edges of the mask."""
    depth, inside = mask.astype(np.int32), mask
    for _ in range(most - 1):
        padded = np.pad(inside, [(0, 0), (1, 1), (1, 1)], mode="edge")
        sides = (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2])
        inside = inside & np.logical_and.reduce((*sides, padded[:, 1:-1, 2:]))
        depth = depth + inside
    return depth


def of_targets(mask: Mask, targets: Sequence[str]) -> Mapping[str, Mask]:
    """One mask for all targets, or one by target."""
    if not isinstance(mask, Mapping):
        return dict.fromkeys(targets, mask)
    for name in mask:
        if name not in targets:
            raise ValueError(
                f"mask of {name!r}, allowed: targets that are given too: {list(targets)}"
            )
    return mask
