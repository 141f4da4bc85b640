"""Instances: masks of a record over its picture, or what was found at query points."""

from typing import Any

import numpy as np
from PIL import Image

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.drawings import boxes, classes
from fourm_jax.evals.pictures import Picture
from fourm_jax.modalities import instance_masks
from fourm_jax.modalities.instances import SIZE, Answers, Instances

RED = (255, 0, 0)
TINT = 0.6  # of a mask over the picture


def make(scale: Scale) -> Draw:
    """Return the drawing of `Answers` and `Instances`; of all else, without a picture, the text."""
    del scale

    def draw(value: Any, picture: Picture | None = None) -> Picture | str:
        if isinstance(value, Instances):
            count = f"{len(value.boxes)} instances"
            return count if picture is None else tinted(picture, value)
        if picture is None or not isinstance(value, Answers):
            return str(value)
        return _answers(picture, value)

    return draw


def tinted(picture: Picture, value: Instances) -> Picture:
    """The picture in the size of a crop, each instance in a colour of its own."""
    side = (SIZE, SIZE)
    drawn = np.array(Image.fromarray(picture).resize(side, Image.Resampling.NEAREST))
    has_area = (value.boxes[:, 2:] > value.boxes[:, :2]).all(axis=1)
    shown = [row for row in np.flatnonzero(has_area) if len(value.polygons[row]) > 2]
    corners = value.boxes[shown]
    masks = instance_masks.rasterize([value.polygons[row] for row in shown], corners)
    whole = instance_masks.paste(masks.astype(np.float32), corners)
    colours = 255 * classes.colours(len(shown) + 1)[1:]
    for mask, colour in zip(whole, colours, strict=True):
        drawn[mask] = TINT * colour + (1 - TINT) * drawn[mask]
    return drawn


def _answers(picture: Picture, value: Answers) -> Picture:
    """Boxes, each with the number of its point, and the points; masks would need a tokenizer."""
    labels = [str(point) for point in value.point_of]
    drawn = np.array(boxes.over(picture, value.boxes / SIZE, labels))
    height, width = drawn.shape[:2]
    for x, y in value.points:
        row, column = int(y * height / SIZE), int(x * width / SIZE)
        drawn[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = RED
    return drawn
