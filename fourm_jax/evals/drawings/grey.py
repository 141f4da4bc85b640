"""One channel, for example edges, as grey."""

import numpy as np
from jaxtyping import UInt8

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.pictures import Picture


def make(scale: Scale) -> Draw:
    """Return the drawing of maps of 0..255."""
    del scale
    return draw


def draw(value: UInt8[np.ndarray, "h w"], picture: Picture | None = None) -> Picture:
    """Repeat the channel."""
    return np.repeat(np.asarray(value, np.uint8)[..., None], 3, axis=-1)
