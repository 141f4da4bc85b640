"""Pictures and maps of any size and kind -> what a modality reads, cropped as in training.

Whatever is done to a value is said in a `ConditionWarning`; what cannot be meant is refused.
"""

import os
import pathlib
import warnings
from typing import Any

import numpy as np

from fourm_jax.generate.prompts import ConditionWarning
from fourm_jax.modalities import label_maps
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers.signal import Signal
from fourm_jax.utils import picture_files

Path = str | os.PathLike
NUM_SHOWN = 4  # classes of a map


def read_picture(path: Path, spec: ModalitySpec, signal: Signal) -> np.ndarray:
    """The array in a .npy or picture file: colours, or of maps of one channel the stored values.

    Published maps of classes, which are known by their folder, are given as labels; what a file of
    classes is taken for is said in a `ConditionWarning`.

    Raises:
      ValueError: no such file, a damaged one, or one of another kind.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise ValueError(f"{spec.name}={path}: no such file")
    if file.suffix == ".npy":
        return read_array(file)
    if signal.axes == "c" or (signal.axes == "hwc" and signal.num_channels != 3):
        raise ValueError(f"{spec.name}={path}: {signal.describe()} come in a .npy file")
    try:
        if signal.axes == "hwc":
            return picture_files.decode_rgb(file)
        values = picture_files.decode_values(file)
        is_map = signal.kind == "classes" and values.ndim == 2
        return _labels(values, spec, file) if is_map else values
    except ValueError as error:
        raise ValueError(f"{spec.name}={path}: {error}") from error


def _labels(stored: np.ndarray, spec: ModalitySpec, file: pathlib.Path) -> np.ndarray:
    """Labels of a file of classes, and the names of those that cover most of it in a warning."""
    is_published = label_maps.is_published(file)
    values = label_maps.labels(stored) if is_published else stored
    ids, counts = np.unique(values, return_counts=True)
    names = [
        f"{int(100 * counts[place] / counts.sum())} % {spec.classes[ids[place]]}"
        for place in np.argsort(-counts)[:NUM_SHOWN]
        if 0 <= ids[place] < len(spec.classes)
    ]
    how = "a published map (class c is label c + 1, 255 is 0)" if is_published else "labels"
    shown = f": {', '.join(names)}" if names else ""
    message = f"{spec.name}: {file} is read as {how}{shown}"
    warnings.warn(message, ConditionWarning, stacklevel=2)
    return values


def read_array(path: Path) -> np.ndarray:
    """The array of a .npy file, whose header may claim no more than the file holds.

    Raises:
      ValueError: a damaged or cut file, or one that holds something else; nothing is unpickled.
    """
    try:
        return np.array(np.lib.format.open_memmap(path, mode="r"))
    except (ValueError, OSError, OverflowError, EOFError, SyntaxError) as error:
        raise ValueError(f"{path} is no whole .npy file of numbers: {error}") from error


def of_pixels(spec: ModalitySpec) -> Signal:
    """What a pixel modality reads."""
    return Signal(axes="hwc", dtype="uint8", num_channels=spec.num_channels, low=0, high=255)


def fit(value: np.ndarray, spec: ModalitySpec, signal: Signal, size: tuple[int, int]) -> np.ndarray:
    """One picture, map or vector as the tokenizer or the pixels of `spec` read it.

    Args:
      value: of one sample: a picture grey, with transparency, in 0..1 or with channels first; a map
        as a file stores it; any size.
      size: (height, width) of the result, where the signal has any.

    Raises:
      ValueError: values that mean nothing for this modality.
    """
    value = np.asarray(value)
    who = f"{spec.name}: array {value.dtype} {list(value.shape)}"
    if value.dtype.kind not in "buif":
        raise ValueError(f"{who}, expected {signal.describe()}")
    if not signal.is_image:
        return value.astype(signal.dtype)
    value = _channels(value, signal, who)
    value = _values(value, signal, who)
    if value.shape[:2] == size:
        return value
    from fourm_jax.data.crops import fields, settings  # what crops training data, needed only here

    crop = settings.crop_at(settings.centre(value.shape[:2]), 0)
    if spec.crop == "feature_map":
        raise ValueError(f"{who}, expected features of {size[0]} x {size[1]} cells")
    resized = fields.RULES[spec.crop](value, crop, fields.Sizes(value.shape[:2], size))
    side = crop.rectangle[2]
    cut = f"the middle {side} x {side} of " if value.shape[0] != value.shape[1] else ""
    warnings.warn(
        f"{spec.name}: {cut}{value.shape[1]} x {value.shape[0]} pixels, resized to {size[1]} x "
        f"{size[0]} as in training",
        ConditionWarning,
        stacklevel=2,
    )
    if signal.kind != "binary":
        return resized
    above = resized > (signal.low + signal.high) / 2  # between the two after interpolation
    return np.where(above, signal.high, signal.low).astype(signal.dtype)


def _channels(value: np.ndarray, signal: Signal, who: str) -> np.ndarray:
    """[h, w, c] or [h, w], as the signal has it."""
    wanted = signal.num_channels if signal.axes == "hwc" else 0
    if value.ndim == 3 and value.shape[0] == max(wanted, 1) != value.shape[2]:
        value = np.moveaxis(value, 0, 2)
    if not wanted and value.ndim == 3 and value.shape[2] == 1:
        value = value[..., 0]
    if not wanted and value.ndim == 3 and value.shape[2] == 3 and value.dtype == np.uint8:
        if signal.kind == "classes":
            raise ValueError(f"{who} is a picture of a label map, expected {signal.describe()}")
        value = picture_files.grey(value)
    if wanted == 3 and value.ndim == 2:
        value = value[..., None]
    if wanted == 3 and value.ndim == 3 and value.shape[2] == 1:
        value = np.repeat(value, 3, axis=2)
    if wanted == 3 and value.ndim == 3 and value.shape[2] == 4:
        scale = 1.0 if value.dtype.kind == "f" else 255.0
        alpha = value[..., 3:] / scale
        over = value[..., :3] * alpha + (1 - alpha) * scale
        value = over.astype(value.dtype) if value.dtype.kind == "f" else np.rint(over)
        value = value.astype(np.uint8) if scale == 255.0 else value
    if value.ndim != (3 if wanted else 2) or (wanted and value.shape[2] != wanted):
        raise ValueError(f"{who}, expected one of {signal.describe()}, of any size")
    return value


def _values(value: np.ndarray, signal: Signal, who: str) -> np.ndarray:
    """The values in the range and dtype of the signal."""
    expected = f"{who}, expected {signal.describe()}"
    if not np.isfinite(value).all():
        raise ValueError(f"{expected}; some values are not finite")
    if signal.kind == "classes":
        if value.dtype.kind == "f" and (value != np.rint(value)).any():
            raise ValueError(f"{expected}; got fractions")
        return value.astype(signal.dtype)
    if signal.kind == "binary":
        return _two_values(value, signal)
    if signal.dtype == "uint8":
        return _bytes(value, expected)
    return _measured(value, signal, expected)


def _two_values(value: np.ndarray, signal: Signal) -> np.ndarray:
    """Above or below the middle of the range of the values."""
    top = {"b": 1, "f": 1.0 if value.max(initial=0) <= 1 else 255.0}.get(value.dtype.kind, 255)
    return np.where(value > top / 2, signal.high, signal.low).astype(signal.dtype)


def _bytes(value: np.ndarray, expected: str) -> np.ndarray:
    """Colours 0..255 of 0..1, of 16 bits, or of wide integers."""
    if value.dtype.kind == "f" and value.min() >= 0 and value.max() <= 1:
        return np.rint(255 * value).astype(np.uint8)
    if value.dtype.kind == "b":
        return (255 * value).astype(np.uint8)
    if value.dtype == np.uint16 and value.max() > 255:
        return np.rint(value / 257).astype(np.uint8)
    if value.min() < 0 or value.max() > 255:
        raise ValueError(f"{expected} or 0 … 1; got values in {value.min():g} … {value.max():g}")
    return np.rint(value).astype(np.uint8)


def _measured(value: np.ndarray, signal: Signal, expected: str) -> np.ndarray:
    """Numbers with a unit; what a file stores has one where it is known."""
    stored = signal.from_stored(value)
    if stored.dtype.kind == "f":
        return stored.astype(np.float32)
    if value.dtype == np.uint16:
        warnings.warn(
            f"{expected.partition(',')[0]} is read as millimetres", ConditionWarning, stacklevel=2
        )
        return (value / np.float32(1000)).astype(np.float32)
    raise ValueError(
        f"{expected}; integers of {8 * value.dtype.itemsize} bits have no unit: give floats, or "
        "16-bit millimetres"
    )


def is_array(value: Any) -> bool:
    """Whether a value is numbers, however nested."""
    try:
        return np.asarray(value).dtype.kind in "buif"
    except ValueError:  # rows of unequal length
        return False
