"""Labelled boxes over the picture of their record."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.pictures import Picture

ENLARGED = 4  # times the picture, so that labels can be read


def make(scale: Scale) -> Draw:
    """Return the drawing of {"boxes", "classes"}; without a picture the names of the classes."""
    del scale

    def draw(value: Mapping[str, Any], picture: Picture | None = None) -> Picture | str:
        if picture is None:
            return ", ".join(value["classes"]) or "(none)"
        return over(picture, np.asarray(value["boxes"]), value["classes"])

    return draw


def over(picture: Picture, corners: np.ndarray, labels: Sequence[str]) -> Picture:
    """Draw boxes [k, 4] (xmin, ymin, xmax, ymax in 0..1) over an enlarged picture."""
    height, width = picture.shape[:2]
    size = (width * ENLARGED, height * ENLARGED)
    canvas = Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    for (left, top, right, bottom), label in zip(corners, labels, strict=True):
        box = [left * width, top * height, right * width, bottom * height]
        box = [float(value) * ENLARGED for value in box]
        if box[2] >= box[0] and box[3] >= box[1]:
            pen.rectangle(box, outline=(255, 255, 255))
            pen.text((box[0] + 2, box[1]), label, fill=(255, 255, 255))
    return np.asarray(canvas)
