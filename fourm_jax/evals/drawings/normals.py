"""Unit normals n as (n + 1) / 2."""

import numpy as np
from jaxtyping import Float

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.pictures import Picture


def make(scale: Scale) -> Draw:
    """Return the drawing of normals; x, y, z become red, green, blue."""
    del scale

    def draw(value: Float[np.ndarray, "h w 3"], picture: Picture | None = None) -> Picture:
        known = np.nan_to_num(value)  # what has no direction is grey
        return np.clip(127.5 * (known + 1), 0, 255).astype(np.uint8)

    return draw
