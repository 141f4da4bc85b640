"""Source of pictures that are sorted into one folder per class: `cat/1.jpg`, `dog/7.png`."""

import os
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fourm_jax.data import picture_folder
from fourm_jax.data.crops import images
from fourm_jax.data.storage import foreign_files
from fourm_jax.data.storage.left_out import LeftOutRecord, RecordError, reason_of
from fourm_jax.utils import errors, picture_files


def make_source(
    split: str,
    *,
    directory: str,
    image_size: int,
    test_fraction: float = 0.1,
    classes: Sequence[str] = (),
) -> "ClassFolderSource":
    """Open the pictures below a folder; the first folder of a path is the class.

    Args:
      split: "train" or "test"; the path of a picture decides, so adding others moves none.
      image_size: pictures become their largest centred square, resized to so many pixels.
      test_fraction: share of the pictures that are "test".
      classes: names in the order of their labels; default: the folders, sorted.

    Raises:
      ValueError: no such folder, a picture in none or in an unknown class, an empty split.
    """
    if split not in ("train", "test"):
        raise ValueError(errors.unknown_value("split", split, ("train", "test")))
    files, others = picture_folder.find(directory)
    if split == "train":  # once for both
        announce_others(directory, others)
    for file in files:
        if "/" not in file:
            raise ValueError(f"{directory}: {file} is in no class; expected CLASS/{file}")
    names = tuple(classes) or tuple(sorted({file.split("/")[0] for file in files}))
    for file in files:
        if file.split("/")[0] not in names:
            raise ValueError(f"{directory}/{file}: class {file.split('/')[0]!r}, allowed: {names}")
    chosen = in_split(files, split, test_fraction)
    if not chosen:
        raise ValueError(f"{directory}: none of {len(files)} pictures is in split {split!r}")
    return ClassFolderSource(directory, chosen, image_size, names)


class ClassFolderSource:
    """Random access to records of `rgb` uint8 [h, w, 3] and `label`, an index into `classes`."""

    def __init__(
        self, directory: os.PathLike | str, files: list[str], image_size: int, classes: tuple
    ) -> None:
        self._root, self._files, self._size = pathlib.Path(directory), files, image_size
        self.classes = classes

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one record; RecordError naming the file if the picture cannot be read."""
        file = self._files[index]
        rgb = centre_square(read(self._root / file, upright=True), self._size, "bicubic")
        return {"rgb": rgb, "label": np.int32(self.classes.index(file.split("/")[0]))}

    def place(self, index: int) -> str:
        """Path of the picture, for messages."""
        return str(self._root / self._files[index])


def announce_others(directory: os.PathLike | str, others: Sequence[LeftOutRecord]) -> None:
    """Say in one line that some files of a folder are no pictures, and why the first is none."""
    why = others[0].message if others else ""
    foreign_files.announce_unread(directory, [one.place for one in others], why)


def in_split(files: Sequence[str], split: str, test_fraction: float) -> list[str]:
    """Those of a split, by a hash of the path."""
    if not 0 <= test_fraction <= 1:
        raise ValueError(f"test_fraction {test_fraction}, allowed: 0..1")
    edge = test_fraction * 2**32
    return [
        file
        for file in files
        if (zlib.crc32(file.encode("utf-8", "surrogateescape")) < edge) == (split == "test")
    ]


def read(path: pathlib.Path, *, upright: bool) -> np.ndarray:
    """Colours of a picture; `upright` as for `picture_files.decode_rgb`."""
    try:
        return picture_files.decode_rgb(path, upright=upright)
    except ValueError as error:
        raise RecordError(reason_of(error, "unreadable_record"), f"{path}: {error}") from error


def centre_square(image: np.ndarray, size: int, resample: str) -> np.ndarray:
    """The largest centred square at a size."""
    height, width = image.shape[:2]
    side = min(height, width)
    rectangle = ((height - side) // 2, (width - side) // 2, side, side)
    return images.crop_resize(image, rectangle, (size, size), resample)
