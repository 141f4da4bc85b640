"""Aligned crops, flips and resizes over all fields of a record (docs/published.md#modalities).

A crop is one row (top, left, height, width, flip) in pixels of the record's pictures. What it does
to a field is said by the modality that reads it (`ModalitySpec.crop`).
"""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Shaped
from PIL import Image

from fourm_jax.data.crops import images
from fourm_jax.modalities import boxes, poses, registry
from fourm_jax.utils import errors

ABSENT = None  # a field that a view cannot have


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """One crop of one record.

    Attributes:
      rectangle: top, left, height, width in pixels.
      flip: whether it is mirrored left to right.
      size: (height, width) of the record's pictures.
      target: (height, width) of the result.
      index: row among the record's crops.
    """

    rectangle: tuple[int, int, int, int]
    flip: bool
    size: tuple[int, int]
    target: tuple[int, int]
    index: int


@runtime_checkable
class Transform(Protocol):
    """What a view makes of one field; ABSENT if it cannot have it."""

    def __call__(self, value: Any, view: View) -> Any: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """An array [h, w] or [h, w, c] of the record's size.

    Attributes:
      resample: "nearest" for labels; "bicubic", as published, or "bilinear" for the rest.
    """

    resample: str

    def __call__(
        self, value: Shaped[np.ndarray, "h w *c"], view: View
    ) -> Shaped[np.ndarray, "height width *c"]:
        return images.crop_resize(value, view.rectangle, view.target, self.resample, view.flip)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normals:
    """Surface normals [h, w, 3], x to the right: uint8 (255 · (n + 1) / 2) or float unit vectors.

    A mirrored picture has mirrored x. Float vectors are unit vectors again after interpolation.
    """

    resample: str = "bicubic"

    def __call__(
        self, value: Shaped[np.ndarray, "h w 3"], view: View
    ) -> Shaped[np.ndarray, "height width 3"]:
        normals = np.array(
            images.crop_resize(value, view.rectangle, view.target, self.resample, view.flip)
        )
        if view.flip:
            x = normals[..., 0]
            normals[..., 0] = 255 - x if normals.dtype == np.uint8 else -x
        if normals.dtype != np.uint8:
            norms = np.linalg.norm(normals, axis=-1, keepdims=True)
            normals = normals / np.maximum(norms, np.finfo(normals.dtype).tiny)
        return normals


class DetectedBoxes:
    """Any form that `boxes.from_record` takes -> `Boxes`, cropped, clipped, empty ones dropped."""

    def __call__(self, value: Any, view: View) -> boxes.Boxes:
        cropped = boxes.from_record(value).cropped(view.rectangle, view.size)
        return cropped.flipped() if view.flip else cropped


class HumanPoses:
    """`Poses` or HMR2.0 results -> `Poses`, cropped.

    ABSENT in a mirrored view: the body pose is a code, and only its tokenizer could mirror it. (The
    published system leaves poses of mirrored pictures as they are, which is wrong.)
    """

    def __call__(self, value: Any, view: View) -> poses.Poses | None:
        if view.flip:
            return ABSENT
        if isinstance(value, Mapping):
            value = poses.Poses.from_hmr(value, view.size)
        return value.cropped(view.rectangle, view.size)


class MirroredText:
    """Text, or lists or mappings of texts, whose words "left" and "right" change in a mirror."""

    def __call__(self, value: Any, view: View) -> Any:
        if not view.flip:
            return value
        if isinstance(value, str):
            other = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
            return re.sub(r"\b([Ll]eft|[Rr]ight)\b", lambda match: other[match[1]], value)
        if isinstance(value, Mapping):
            return {key: self(text, view) for key, text in value.items()}
        return [self(text, view) for text in value]


class PerCrop:
    """One value per crop, made in advance: the view's own."""

    def __call__(self, value: Any, view: View) -> Any:
        if view.index >= len(value):
            raise ValueError(f"crop {view.index}, but only {len(value)} were made in advance")
        return value[view.index]


class Unchanged:
    """What a crop does not concern."""

    def __call__(self, value: Any, view: View) -> Any:
        return value


class CoarseMap:
    """A float32 map [i, j, c] of the whole picture, coarser than its pixels (dense features).

    A view keeps the cells per pixel: 16 x 24 cells of 256 x 384 pixels are 14 x 14 at 224 x 224.
    """

    def __call__(
        self, value: Shaped[np.ndarray, "i j c"], view: View
    ) -> Shaped[np.ndarray, "k l c"]:
        top, left, height, width = view.rectangle
        rows, columns = (cells / size for cells, size in zip(value.shape, view.size, strict=False))
        grid = round(view.target[1] * columns), round(view.target[0] * rows)
        box = (left * columns, top * rows, (left + width) * columns, (top + height) * rows)
        planes = [
            Image.fromarray(plane).resize(grid, Image.Resampling.BILINEAR, box=box)
            for plane in np.ascontiguousarray(np.moveaxis(value, -1, 0))
        ]
        cut = np.stack(planes, axis=-1)
        return cut[:, ::-1] if view.flip else cut


# What a crop does to a record field, by `ModalitySpec.crop` of the modalities that read it.
RULES: Mapping[str, Transform] = {
    "picture": Picture(resample="bicubic"),
    "labels": Picture(resample="nearest"),
    "normals": Normals(),
    "feature_map": CoarseMap(),
    "boxes": DetectedBoxes(),
    "poses": HumanPoses(),
    "text": MirroredText(),
    "per_crop": PerCrop(),
    "unchanged": Unchanged(),
}
# Rules of pictures that records may hold and no modality reads.
UNREAD: Mapping[str, str] = {
    "instance": "labels",
    "instance_edge": "picture",
    "mask_valid": "labels",
}


def field_rules() -> dict[str, Transform]:
    """Return {record field: what a crop does to it} of all fields that can be cropped."""
    read = {source: spec.crop for source, spec in registry.sources().items()}
    return {field: RULES[rule] for field, rule in {**UNREAD, **read}.items()}


def sample_crops(
    rng: np.random.Generator,
    size: tuple[int, int],
    num_crops: int,
    *,
    scale: tuple[float, float] = (0.8, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip_probability: float = 0.5,
) -> Int[np.ndarray, "n 5"]:
    """Crop settings of one record: int32 rows (top, left, height, width, flip).

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
    height, width = size
    side = min(size)
    rows = [((height - side) // 2, (width - side) // 2, side, side, 0)]
    for _ in range(num_crops - 1):
        rectangle = _random_rectangle(rng, size, scale, ratio)
        rows.append((*rectangle, int(rng.random() < flip_probability)))
    return np.array(rows, np.int32)


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


def crop_record(
    record: Mapping[str, Any],
    settings: Int[np.ndarray, "n 5"],
    target: tuple[int, int],
    names: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """All views of one record, aligned over its fields.

    Args:
      record: {field: value}; pictures of one record have one size.
      settings: rows of `sample_crops`, or stored ones.
      target: (height, width) of the pictures in the result.
      names: fields of the result (those that the record has); None = all. The others only tell
        the size of the pictures, where they are pictures.

    Returns:
      One record per row, without the fields that are ABSENT in it.

    Raises:
      ValueError: a field that no modality reads, no picture, pictures of different sizes, settings
        of another shape or empty rectangles.
    """
    rules = field_rules()
    wanted = [field for field in record if names is None or field in names]
    for field in wanted:
        if field not in rules:
            raise ValueError(errors.unknown_value("record field", field, rules))
    settings = np.asarray(settings)
    if settings.ndim != 2 or settings.shape[1] != 5 or (settings[:, 2:4] < 1).any():
        raise ValueError(
            f"crop settings {settings.tolist()}, allowed: rows of top, left, height >= 1, "
            f"width >= 1, flip"
        )
    size = picture_size(record)
    views = []
    for index, (*rectangle, flip) in enumerate(settings.tolist()):
        view = View(
            rectangle=tuple(rectangle), flip=bool(flip), size=size, target=target, index=index
        )
        values = {field: rules[field](record[field], view) for field in wanted}
        views.append({field: value for field, value in values.items() if value is not ABSENT})
    return views


def picture_size(record: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) that all pictures of the record share.

    Raises:
      ValueError: no picture, or pictures of different sizes.
    """
    rules = field_rules()
    sizes = {
        field: value.shape[:2]
        for field, value in record.items()
        if isinstance(rules.get(field), Picture | Normals)
    }
    if len({*sizes.values()}) != 1:
        raise ValueError(f"pictures of sizes {sizes}; a record needs pictures, all of one size")
    return next(iter(sizes.values()))
