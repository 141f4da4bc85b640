"""Labeler: the pixels of the picture, upright, RGB, at one size of the shorter side."""

import numpy as np

from fourm_jax.data import picture_folder
from fourm_jax.labelers.base import Labeler, Output


def make_labeler(*, image_size: int = 256) -> Labeler:
    """Make `rgb`, and `original_size` int32 (height, width).

    Args:
      image_size: pixels of the shorter side; crops of this size or less lose nothing.

    Raises:
      ValueError: another image size than 16..2048.
    """
    if not 16 <= image_size <= 2048:
        raise ValueError(f"image_size {image_size}, allowed: 16..2048")

    def label(records):
        read = [picture_folder.read(record["path"], image_size) for record in records]
        return [{"rgb": rgb, "original_size": np.array(size, np.int32)} for rgb, size in read]

    return Labeler(
        name="rgb",
        inputs=("path",),
        outputs={
            "rgb": Output(axes="hwc", dtype="uint8", low=0, high=255),
            "original_size": Output(axes="c", dtype="int32", low=1),
        },
        label=label,
        settings={"image_size": image_size},
    )
