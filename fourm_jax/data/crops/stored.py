"""Records that hold several crops: the one place that says how they are stored, written and read.

A record with the field `crop_settings`, int32 [n, 5] rows of (top, left, height, width, flip) in
pixels of its whole picture, holds n crops; row 0 is the centre crop
(docs/published.md#pretokenization). Beside it

    grid, global   ids [n, l] or [n, l, codes]
    sequence       ids [n, longest] with `<field>.length` [n], chunked also `<field>.chunk`
                   [n, longest]; or, where all crops share them, ids [l] (and chunks [l])
    embedding      [n, longest, e] with `<field>.length` [n]; or, shared, [l, e]
    pixels         crops [n, h, w, c]; or the whole picture, [h, w, c] or the bytes of its PNG or
                   JPEG file, which is cropped when it is read

Length 0 says that a crop lacks the modality. `settings.sample` draws the settings. A record without
`crop_settings` is one crop of everything.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from fourm_jax.data.crops import images
from fourm_jax.data.crops.settings import SETTINGS, Crop
from fourm_jax.modalities.spec import ModalitySpec

LENGTH_SUFFIX = ".length"
CHUNK_SUFFIX = ".chunk"  # which chunk each token of a sequence belongs to
_SINGLE_RANK = {"sequence": 1, "embedding": 2}  # of a value that all crops share


class UncroppedPicture(NamedTuple):
    """A picture that is still to be cropped: pixels, or the bytes of a file."""

    picture: UInt8[np.ndarray, "..."]
    crop: Crop


def select(
    spec: ModalitySpec, record: Mapping[str, Any], name: str, crop: Crop
) -> tuple[np.ndarray | UncroppedPicture | None, np.ndarray | None]:
    """Value of one field in one crop, and its chunks if it is chunked; None if it is absent.

    Raises:
      ValueError: an array that does not hold a row per crop, or lengths that do not fit.
    """
    value: np.ndarray = record[name]
    chunk = record.get(name + CHUNK_SUFFIX) if spec.chunked else None
    if spec.kind == "pixels":
        if value.ndim != 4:
            return UncroppedPicture(value, crop), None
        return _row(value, name, crop), None
    if spec.kind not in _SINGLE_RANK:
        return _row(value, name, crop), None
    if value.ndim == _SINGLE_RANK[spec.kind]:
        return value, chunk
    row, lengths = _row(value, name, crop), record.get(name + LENGTH_SUFFIX)
    if lengths is None or lengths.shape != (crop.count,) or lengths.dtype.kind not in "iu":
        found = "nothing" if lengths is None else f"{lengths.dtype} of shape {lengths.shape}"
        raise ValueError(
            f"{name!r} has {crop.count} crops and needs their integer lengths in "
            f"{name + LENGTH_SUFFIX!r}, found {found}"
        )
    length = int(lengths[crop.index])
    if not 0 <= length <= len(row):
        raise ValueError(f"{name!r} has length {length} in crop {crop.index}, of {len(row)} stored")
    if not length:
        return None, None
    if chunk is not None:
        chunk = _row(chunk, name + CHUNK_SUFFIX, crop)[:length]
    return row[:length], chunk


def _row(value: np.ndarray, name: str, crop: Crop) -> np.ndarray:
    if value.ndim < 2 or len(value) != crop.count:
        raise ValueError(f"{name!r} has shape {value.shape}, expected {crop.count} crops")
    return value[crop.index]


def cut(
    picture: UInt8[np.ndarray, "h w c"], crop: Crop, size: tuple[int, int]
) -> UInt8[np.ndarray, "height width c"]:
    """Crop, resize to (height, width) and flip a whole picture, as `fields.RULES` does pictures.

    Raises:
      ValueError: a crop that is not inside the picture.
    """
    top, left, height, width = crop.rectangle
    if top + height > picture.shape[0] or left + width > picture.shape[1]:
        raise ValueError(f"crop {crop.rectangle} is not inside a picture of {picture.shape[:2]}")
    return images.crop_resize(picture, crop.rectangle, size, "bicubic", crop.flip)


def stack(
    crops: Sequence[Mapping[str, Any]], specs: Sequence[ModalitySpec]
) -> dict[str, np.ndarray]:
    """The crops of one record -> one record of several crops.

    Args:
      crops: each {modality: array, "<modality>.chunk": array} and its row of `crop_settings` [5].

    Raises:
      ValueError: a crop without a grid, vector or picture that others have: only texts and
        embeddings may be absent in some crops.
    """
    record: dict[str, np.ndarray] = {}
    record[SETTINGS] = np.stack([crop[SETTINGS] for crop in crops]).astype(np.int32)
    for spec in specs:
        values = [crop.get(spec.name) for crop in crops]
        if all(value is None for value in values):
            continue
        if spec.kind in _SINGLE_RANK:
            chunks = [crop.get(spec.name + CHUNK_SUFFIX) for crop in crops]
            record |= _stack_lists(spec.name, values, chunks)
            continue
        there = [value for value in values if value is not None]
        if len(there) < len(values):
            missing = [index for index, value in enumerate(values) if value is None]
            raise ValueError(f"{spec.name!r} is absent in crops {missing}, but not in the others")
        record[spec.name] = np.stack(there)
    return record


def _stack_lists(name: str, values: Sequence, chunks: Sequence) -> dict[str, np.ndarray]:
    """Lists of any length; stored once if all crops share them."""
    first, has_chunks = values[0], any(chunk is not None for chunk in chunks)
    if all(_equal(first, value) for value in values) and all(
        not has_chunks or _equal(chunks[0], chunk) for chunk in chunks
    ):
        return {name: first, **({name + CHUNK_SUFFIX: chunks[0]} if has_chunks else {})}
    lengths = [0 if value is None else len(value) for value in values]
    record = {name: _pad(values), name + LENGTH_SUFFIX: np.array(lengths, np.uint16)}
    return record | ({name + CHUNK_SUFFIX: _pad(chunks)} if has_chunks else {})


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is not None and other is not None and np.array_equal(one, other)


def _pad(values: Sequence[np.ndarray | None]) -> np.ndarray:
    """Stack arrays [l, ...] of different lengths; what is missing is 0."""
    example = max((value for value in values if value is not None), key=len)
    padded = np.zeros((len(values), *example.shape), example.dtype)
    for row, value in zip(padded, values, strict=True):
        if value is not None:
            row[: len(value)] = value
    return padded
