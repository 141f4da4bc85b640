"""Depth on the inferno map: near is bright."""

import matplotlib
import numpy as np
from jaxtyping import Float

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.pictures import Picture


def make(scale: Scale) -> Draw:
    """Return the drawing of depth maps, from the nearest hundredth of the reference to its end."""

    def draw(value: Float[np.ndarray, "h w"], picture: Picture | None = None) -> Picture:
        depth = value if scale.reference is None else scale.reference
        near, far = float(np.quantile(depth, 0.01)), float(depth.max())
        scaled = np.clip((value - near) / max(far - near, 1e-6), 0, 1)
        shades = np.asarray(matplotlib.colormaps["inferno"](1 - scaled))
        return (255 * shades[..., :3]).astype(np.uint8)

    return draw
