"""A palette as upright stripes of one square."""

import numpy as np
from jaxtyping import UInt8

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.pictures import Picture

SIDE = 28  # pixels


def make(scale: Scale) -> Draw:
    """Return the drawing of palettes; an empty one is white."""
    del scale

    def draw(value: UInt8[np.ndarray, "k 3"], picture: Picture | None = None) -> Picture:
        colours = np.asarray(value, np.uint8).reshape(-1, 3)
        if not len(colours):
            return np.full((SIDE, SIDE, 3), 255, np.uint8)
        stripe = np.arange(SIDE) * len(colours) // SIDE
        return np.repeat(colours[stripe][None], SIDE, axis=0)

    return draw
