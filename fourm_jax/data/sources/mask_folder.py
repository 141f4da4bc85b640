"""Source of pictures with a label map each: `images/b/a.jpg` and `masks/b/a.png`."""

import collections
import pathlib
from typing import Any

import numpy as np

from fourm_jax.data import picture_folder
from fourm_jax.data.sources import class_folder
from fourm_jax.data.storage import foreign_files
from fourm_jax.data.storage.left_out import RecordError, reason_of
from fourm_jax.utils import errors, picture_files

IMAGES, MASKS = "images", "masks"


def make_source(
    split: str, *, directory: str, image_size: int, test_fraction: float = 0.1
) -> "MaskFolderSource":
    """Open the pairs below a folder.

    Args:
      split: "train" or "test"; the path of a picture decides, so adding others moves none.
      image_size: both become their largest centred square, resized to so many pixels; the classes
        of a mask are taken from the nearest pixel.
      test_fraction: share of the pairs that are "test".

    Raises:
      ValueError: no such folders, a picture without a mask or with two, an empty split.
    """
    if split not in ("train", "test"):
        raise ValueError(errors.unknown_value("split", split, ("train", "test")))
    root = pathlib.Path(directory)
    (files, no_images), (every, no_masks) = map(picture_folder.find, (root / IMAGES, root / MASKS))
    masks = collections.defaultdict(list)
    for mask in every:
        masks[_name(mask)].append(mask)
    if split == "train":  # once for both
        class_folder.announce_others(root / IMAGES, no_images)
        class_folder.announce_others(root / MASKS, no_masks)
        pictures = {*map(_name, files)}
        alone = [mask for mask in every if _name(mask) not in pictures]
        foreign_files.announce_unread(root / MASKS, alone, f"no picture in {IMAGES} has its name")
    pairs = []
    for file in class_folder.in_split(files, split, test_fraction):
        found = masks[_name(file)]
        if len(found) != 1:
            several = f", but {len(found)}: {', '.join(found)}" if found else ""
            expected = root / MASKS / f"{_name(file)}.png"
            raise ValueError(f"{root / IMAGES / file} has no mask {expected}{several}")
        pairs.append((file, found[0]))
    if not pairs:
        raise ValueError(f"{directory}: none of {len(files)} pictures is in split {split!r}")
    return MaskFolderSource(root, pairs, image_size)


def _name(file: str) -> str:
    """What a picture and its mask have in common: the path without its ending."""
    return pathlib.PurePosixPath(file).with_suffix("").as_posix()


class MaskFolderSource:
    """Random access to records of `rgb` uint8 [h, w, 3] and `label` int32 [h, w]."""

    def __init__(self, root: pathlib.Path, pairs: list[tuple[str, str]], image_size: int) -> None:
        self._root, self._pairs, self._size = root, pairs, image_size

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one pair; RecordError naming the file that cannot be read or does not fit."""
        image, mask = self._pairs[index]
        path = self._root / MASKS / mask
        rgb = class_folder.read(self._root / IMAGES / image, upright=False)
        try:
            labels = picture_files.decode_values(path, upright=False)
        except ValueError as error:
            raise RecordError(reason_of(error, "unreadable_record"), f"{path}: {error}") from error
        if labels.ndim != 2:
            raise RecordError("wrong_shape", f"{path}: a mask in colours, expected class indices")
        if labels.shape != rgb.shape[:2]:
            message = f"{path}: a mask of {labels.shape} pixels, its picture has {rgb.shape[:2]}"
            raise RecordError("wrong_shape", message)
        square = class_folder.centre_square(labels, self._size, "nearest")
        return {
            "rgb": class_folder.centre_square(rgb, self._size, "bicubic"),
            "label": square.astype(np.int32),
        }

    def place(self, index: int) -> str:
        """Path of the picture, for messages."""
        return str(self._root / IMAGES / self._pairs[index][0])
