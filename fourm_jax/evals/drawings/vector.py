"""A vector as a square of shades, row by row, ±2 deviations."""

import numpy as np
from jaxtyping import Float

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.drawings import grey
from fourm_jax.evals.pictures import Picture

COLUMNS = 6


def make(scale: Scale) -> Draw:
    """Return the drawing of vectors; spare cells are black."""
    del scale

    def draw(value: Float[np.ndarray, "c"], picture: Picture | None = None) -> Picture:
        shades = np.clip(127.5 + 63.75 * np.asarray(value), 0, 255).astype(np.uint8)
        return grey.draw(np.pad(shades, (0, -len(shades) % COLUMNS)).reshape(-1, COLUMNS))

    return draw
