"""Depth on the inferno map: near is bright."""

import matplotlib
import numpy as np
from jaxtyping import Float, Num
from PIL import Image, ImageDraw, ImageFont

from fourm_jax.contracts import AnyArray
from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.pictures import SHOWN, Picture

WIDTH, HEIGHT = SHOWN, 30  # pixels of the legend


def make(scale: Scale) -> Draw:
    """Return the drawing of depth maps, from the nearest hundredth of the reference to its end."""

    def draw(value: Num[AnyArray, "h w"], picture: Picture | None = None) -> Picture:
        near, far = _range(scale, value)
        return _shades(np.clip((value - near) / max(far - near, 1e-6), 0, 1))

    return draw


def legend(scale: Scale, value: Num[AnyArray, "h w"]) -> Picture:
    """The shades from near to far, with the depth at both ends."""
    near, far = _range(scale, value)
    bar = np.broadcast_to(np.linspace(0, 1, WIDTH), (HEIGHT // 2, WIDTH))
    canvas = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    canvas.paste(Image.fromarray(_shades(bar)))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    pen.text((0, HEIGHT // 2), f"{near:.3g} {scale.unit}".strip(), fill=(0, 0, 0), font=font)
    end = f"{far:.3g} {scale.unit}".strip()
    pen.text((WIDTH - font.getlength(end), HEIGHT // 2), end, fill=(0, 0, 0), font=font)
    return np.asarray(canvas)


def _range(scale: Scale, value: Num[AnyArray, "h w"]) -> tuple[float, float]:
    depth = np.asarray(value if scale.reference is None else scale.reference)
    depth = depth[np.isfinite(depth)]  # a pixel without depth has no part in the scale
    return (float(np.quantile(depth, 0.01)), float(depth.max())) if depth.size else (0.0, 1.0)


def _shades(share: Float[np.ndarray, "h w"]) -> Picture:
    shades = np.asarray(matplotlib.colormaps["inferno"](1 - share))
    return (255 * shades[..., :3]).astype(np.uint8)
