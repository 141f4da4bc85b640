"""Aligned crops, flips and resizes over all fields of a record (docs/published.md#modalities).

What a crop (`settings.Crop`) does to a field is said by the modality that reads it
(`ModalitySpec.crop`).
"""

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Shaped

from fourm_jax.data.crops import images, settings
from fourm_jax.data.crops.settings import Crop
from fourm_jax.modalities import boxes, poses, registry, serializers
from fourm_jax.modalities.coordinates import Changes
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import errors

ABSENT = None  # a field that a crop cannot have


class Sizes(NamedTuple):
    """(height, width) of a record's pictures, and of what is made of them."""

    source: tuple[int, int]
    target: tuple[int, int]


@runtime_checkable
class Transform(Protocol):
    """What a crop makes of one field; ABSENT if it cannot have it."""

    def __call__(self, value: Any, crop: Crop, sizes: Sizes) -> Any: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """An array [h, w] or [h, w, c] of the record's size.

    Attributes:
      resample: "nearest" for labels; "bicubic", as published, or "bilinear" for the rest.
    """

    resample: str

    def __call__(
        self, value: Shaped[np.ndarray, "h w *c"], crop: Crop, sizes: Sizes
    ) -> Shaped[np.ndarray, "height width *c"]:
        return images.crop_resize(value, crop.rectangle, sizes.target, self.resample, crop.flip)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normals:
    """Surface normals [h, w, 3], x to the right: uint8 (255 · (n + 1) / 2) or float unit vectors.

    A mirrored picture has mirrored x. Float vectors are unit vectors again after interpolation; one
    that lacks a component (not finite) is none, see `images.resize_plane`.
    """

    resample: str = "bicubic"

    def __call__(
        self, value: Shaped[np.ndarray, "h w 3"], crop: Crop, sizes: Sizes
    ) -> Shaped[np.ndarray, "height width 3"]:
        if value.dtype.kind == "f":
            known = np.isfinite(value).all(axis=-1, keepdims=True)
            value = np.where(known, value, np.full_like(value, np.nan))
        normals = np.array(
            images.crop_resize(value, crop.rectangle, sizes.target, self.resample, crop.flip)
        )
        if crop.flip:
            x = normals[..., 0]
            normals[..., 0] = 255 - x if normals.dtype == np.uint8 else -x
        if normals.dtype != np.uint8:
            norms = np.linalg.norm(normals, axis=-1, keepdims=True)
            normals = normals / np.maximum(norms, np.finfo(normals.dtype).tiny)
        return normals


class DetectedBoxes:
    """Any form that `boxes.from_record` takes -> `Boxes`, cropped, clipped, empty ones dropped."""

    def __call__(self, value: Any, crop: Crop, sizes: Sizes) -> boxes.Boxes:
        inside = boxes.from_record(value).cropped(crop.rectangle, sizes.source)
        return inside.flipped() if crop.flip else inside


class HumanPoses:
    """`Poses` or HMR2.0 results -> `Poses`, cropped.

    ABSENT in a mirrored crop: the body pose is a code, and only its tokenizer could mirror it. (The
    published system leaves poses of mirrored pictures as they are, which is wrong.)
    """

    def __call__(self, value: Any, crop: Crop, sizes: Sizes) -> poses.Poses | None:
        if crop.flip:
            return ABSENT
        return poses.from_record(value, sizes.source).cropped(crop.rectangle, sizes.source)


class MirroredText:
    """Text, or lists or mappings of texts, whose words "left" and "right" change in a mirror.

    What else stands beside a text (the size or the address of a picture) stays as it is.
    """

    def __call__(self, value: Any, crop: Crop, sizes: Sizes) -> Any:
        if not crop.flip:
            return value
        if isinstance(value, str):
            other = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
            return re.sub(r"\b([Ll]eft|[Rr]ight)\b", lambda match: other[match[1]], value)
        if isinstance(value, Mapping):
            return {key: self(text, crop, sizes) for key, text in value.items()}
        if isinstance(value, list | tuple):
            return [self(text, crop, sizes) for text in value]
        return value


class PerCrop:
    """One value per crop, made in advance: this crop's own."""

    def __call__(self, value: Any, crop: Crop, sizes: Sizes) -> Any:
        if crop.index >= len(value):
            raise ValueError(f"crop {crop.index}, but only {len(value)} were made in advance")
        return value[crop.index]


class Unchanged:
    """What a crop does not concern."""

    def __call__(self, value: Any, crop: Crop, sizes: Sizes) -> Any:
        return value


class CoarseMap:
    """A float32 map [i, j, c] of the whole picture, coarser than its pixels (dense features).

    A crop keeps the cells per pixel: 16 x 24 cells of 256 x 384 pixels are 14 x 14 at 224 x 224.
    Of cells without a value, see `images.resize_plane`.
    """

    def __call__(
        self, value: Shaped[np.ndarray, "i j c"], crop: Crop, sizes: Sizes
    ) -> Shaped[np.ndarray, "k l c"]:
        top, left, height, width = crop.rectangle
        rows, columns = value.shape[0] / sizes.source[0], value.shape[1] / sizes.source[1]
        grid = round(sizes.target[0] * rows), round(sizes.target[1] * columns)
        box = (left * columns, top * rows, (left + width) * columns, (top + height) * rows)
        planes = [
            images.resize_plane(plane, grid, "bilinear", box) for plane in np.moveaxis(value, -1, 0)
        ]
        cut = np.stack(planes, axis=-1)
        return cut[:, ::-1] if crop.flip else cut


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
    "label": "unchanged",  # of the whole picture
}


def count_changes(spec: ModalitySpec, value: Any, size: tuple[int, int] | None) -> Changes:
    """What whoever cuts or writes a raw text field clips or leaves out of it, over all crops.

    Args:
      size: (height, width) of the record's picture, where it has one.

    Raises:
      ValueError: one lies further outside, or the field is none of its kind.
    """
    form = serializers.get(spec.text_form)
    if spec.crop == "poses":
        return poses.count_changes(value, size or (1, 1))
    every = [form.count_changes(one) for one in (value if spec.crop == "per_crop" else [value])]
    return Changes(sum(one.num_clipped for one in every), sum(one.num_empty for one in every))


def is_same_in_every_crop(spec: ModalitySpec) -> bool:
    """Whether a crop shows the vector of its whole picture, where one of the crop was to be had."""
    return spec.kind == "global" and isinstance(RULES[spec.crop], Unchanged)


def field_rules(specs: Iterable[ModalitySpec] = ()) -> dict[str, Transform]:
    """Return {record field: what a crop does to it} of all fields that can be cropped.

    Args:
      specs: modalities of a run, some of which the registry may not have.

    Raises:
      ValueError: one of them has a `crop` that does not exist.
    """
    sources = registry.sources(specs)
    for spec in sources.values():
        if spec.crop not in RULES:
            raise ValueError(
                errors.unknown_value(f"crop of modality {spec.name!r}", spec.crop, RULES)
            )
    read = {source: spec.crop for source, spec in sources.items()}
    return {field: RULES[rule] for field, rule in {**UNREAD, **read}.items()}


def crop_record(
    record: Mapping[str, Any],
    rows: Int[np.ndarray, "n 5"] | Sequence[Sequence[int]],
    target: tuple[int, int],
    names: Collection[str] | None = None,
    specs: Sequence[ModalitySpec] = (),
) -> list[dict[str, Any]]:
    """All crops of one record.

    Args:
      record: {field: value}; pictures of one record have one size.
      rows: crop settings, drawn or stored.
      target: (height, width) of the pictures in the result.
      names: fields of the result (those that the record has); None = all. The others only tell
        the size of the pictures, where they are pictures.
      specs: see `field_rules`.

    Returns:
      One record per row, see `crop_fields`.

    Raises:
      ValueError: see `crop_fields` and `settings.check`.
    """
    _wanted(record, names, field_rules(specs))
    checked = settings.check(rows, picture_size(record, specs))
    crops = [settings.crop_at(checked, index) for index in range(len(checked))]
    return [crop_fields(record, crop, target, names, specs) for crop in crops]


def crop_fields(
    record: Mapping[str, Any],
    crop: Crop,
    target: tuple[int, int],
    names: Collection[str] | None = None,
    specs: Sequence[ModalitySpec] = (),
) -> dict[str, Any]:
    """One crop of a record, aligned over its fields; arguments as for `crop_record`.

    Returns:
      {field: value} without the fields that are ABSENT in this crop.

    Raises:
      ValueError: a field that no modality reads, no picture, or pictures of different sizes.
    """
    rules = field_rules(specs)
    wanted = _wanted(record, names, rules)
    sizes = Sizes(picture_size(record, specs), target)
    cropped = {}
    for field in wanted:
        value = rules[field](record[field], crop, sizes)
        if value is not ABSENT:
            cropped[field] = value
    return cropped


def _wanted(
    record: Mapping[str, Any], names: Collection[str] | None, rules: Mapping[str, Transform]
) -> list[str]:
    """Fields of the record that are cropped; ValueError if no modality reads one."""
    wanted = [field for field in record if names is None or field in names]
    for field in wanted:
        if field not in rules:
            raise ValueError(errors.unknown_value("record field", field, rules))
    return wanted


def picture_size(record: Mapping[str, Any], specs: Iterable[ModalitySpec] = ()) -> tuple[int, int]:
    """(height, width) that all pictures of the record share; `specs` as for `field_rules`.

    Raises:
      ValueError: no picture, or pictures of different sizes.
    """
    rules = field_rules(specs)
    sizes = {
        field: np.shape(value)[:2]
        for field, value in record.items()
        if isinstance(rules.get(field), Picture | Normals)
    }
    for field, size in sizes.items():
        if len(size) < 2:
            shape = np.shape(record[field])
            raise ValueError(f"{field!r} has shape {shape}, expected pixels [h, w] or [h, w, c]")
    if len({*sizes.values()}) != 1:
        raise ValueError(f"pictures of sizes {sizes}; a record needs pictures, all of one size")
    return next(iter(sizes.values()))
