"""Label maps in well separated colours."""

import matplotlib
import numpy as np
from jaxtyping import Float, Integer

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.pictures import Picture

FEW = 20  # colours of the map for few classes
GOLDEN = (5**0.5 - 1) / 2  # steps of this share of the colour circle never meet again


def make(scale: Scale) -> Draw:
    """Return the drawing of class ids; class 0 is dark grey."""

    def draw(value: Integer[np.ndarray, "h w"], picture: Picture | None = None) -> Picture:
        num_classes = scale.num_classes or int(value.max()) + 1
        chosen = colours(num_classes)[np.clip(value, 0, num_classes - 1)]
        return (255 * chosen).astype(np.uint8)

    return draw


def colours(num_classes: int) -> Float[np.ndarray, "c 3"]:
    """One colour per class, 0..1: no two are equal, however many there are."""
    index = np.arange(num_classes)
    if num_classes <= FEW:
        table = matplotlib.colormaps["tab20"](index)[:, :3]
    else:
        shade = 1 - 0.2 * (index % 3)
        hsv = np.stack([index * GOLDEN % 1, np.full(num_classes, 0.75), shade], axis=-1)
        table = matplotlib.colors.hsv_to_rgb(hsv)
    table[0] = 0.25
    return table
