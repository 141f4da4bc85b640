"""People as boxes over their picture; their limbs need a body model, which is not part of this."""

import numpy as np

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.drawings import boxes
from fourm_jax.evals.pictures import Picture
from fourm_jax.modalities.poses import Poses


def make(scale: Scale) -> Draw:
    """Return the drawing of `Poses`; without a picture the number of people."""
    del scale

    def draw(value: Poses, picture: Picture | None = None) -> Picture | str:
        if picture is None or not len(value.boxes):
            return f"{len(value.boxes)} people"
        return boxes.over(picture, np.asarray(value.boxes), ["human"] * len(value.boxes))

    return draw
