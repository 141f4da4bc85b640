"""Labelled boxes over the picture that they belong to."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.pictures import SHOWN, Picture

FONT_SIZE = 11 / SHOWN  # of a label, as a share of the shorter side


def make(scale: Scale) -> Draw:
    """Return the drawing of {"boxes", "classes"}; without a picture the names of the classes."""
    del scale

    def draw(value: Mapping[str, Any], picture: Picture | None = None) -> Picture | str:
        if picture is None:
            return ", ".join(value["classes"]) or "(none)"
        return over(picture, np.asarray(value["boxes"]), value["classes"])

    return draw


def over(picture: Picture, corners: np.ndarray, labels: Sequence[str]) -> Picture:
    """Draw boxes [k, 4] (xmin, ymin, xmax, ymax in 0..1) over a picture, each label whole.

    Small pictures are enlarged, so that labels can be read.
    """
    height, width = picture.shape[:2]
    factor = max(SHOWN / min(height, width), 1.0)
    width, height = round(width * factor), round(height * factor)
    canvas = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(max(FONT_SIZE * min(width, height), 10))
    places = []
    for (left, top, right, bottom), label in zip(corners, labels, strict=True):
        box = [left * width, top * height, right * width, bottom * height]
        box = [float(value) for value in box]
        if box[2] >= box[0] and box[3] >= box[1]:
            pen.rectangle(box, outline=(255, 255, 255))
            places.append((box[0], box[1], label))
    for left, top, label in places:  # above all boxes, and inside the picture
        _, _, right, bottom = pen.textbbox((0, 0), label, font=font)
        place = (max(min(left, width - right - 2), 0), max(min(top, height - bottom - 2), 0))
        frame = (place[0], place[1], place[0] + right + 2, place[1] + bottom + 1)
        pen.rectangle(frame, fill=(0, 0, 0))
        pen.text((place[0] + 1, place[1]), label, fill=(255, 255, 255), font=font)
    return np.asarray(canvas)
