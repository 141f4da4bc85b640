"""Instances that were found at query points: their boxes over the picture, and the points."""

import numpy as np

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.drawings import boxes
from fourm_jax.evals.pictures import Picture
from fourm_jax.modalities.instances import SIZE, Answers

RED = (255, 0, 0)


def make(scale: Scale) -> Draw:
    """Return the drawing of `Answers`; of anything else, and without a picture, its text."""
    del scale

    def draw(value: Answers, picture: Picture | None = None) -> Picture | str:
        if picture is None or not isinstance(value, Answers):
            return str(value)
        labels = [str(point) for point in value.point_of]
        drawn = np.array(boxes.over(picture, value.boxes / SIZE, labels))
        height, width = drawn.shape[:2]
        for x, y in value.points:
            row, column = int(y * height / SIZE), int(x * width / SIZE)
            drawn[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = RED
        return drawn

    return draw
