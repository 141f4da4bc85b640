"""A vector as the picture of its nearest neighbour; without pictures as a square of shades."""

import numpy as np
from jaxtyping import Float

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.drawings import grey
from fourm_jax.evals.pictures import Picture

COLUMNS = 6


def make(scale: Scale) -> Draw:
    """Return the drawing of vectors.

    With a reference and its pictures, that of the record whose vector points the same way most;
    else the values row by row, ±2 deviations, spare cells black.
    """
    unit = None
    if scale.reference is not None and scale.pictures is not None:
        unit = _directions(scale.reference)

    def draw(value: Float[np.ndarray, "c"], picture: Picture | None = None) -> Picture:
        if unit is not None and scale.pictures is not None:
            return scale.pictures[int(np.argmax(unit @ _directions(np.asarray(value))))]
        shades = np.clip(127.5 + 63.75 * np.asarray(value), 0, 255).astype(np.uint8)
        return grey.draw(np.pad(shades, (0, -len(shades) % COLUMNS)).reshape(-1, COLUMNS))

    return draw


def _directions(vectors: Float[np.ndarray, "*n c"]) -> Float[np.ndarray, "*n c"]:
    """The vectors with length 1."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-6)
