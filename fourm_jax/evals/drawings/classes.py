"""Label maps in well separated colours."""

import matplotlib
import numpy as np
from jaxtyping import Float, Integer
from PIL import Image, ImageDraw, ImageFont

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.pictures import SHOWN, Picture

FEW = 20  # colours of the map for few classes
ROW = 15  # pixels of a line of the legend
GOLDEN = (5**0.5 - 1) / 2  # steps of this share of the colour circle never meet again


def make(scale: Scale) -> Draw:
    """Return the drawing of class ids; class 0 is dark grey."""

    def draw(value: Integer[np.ndarray, "h w"], picture: Picture | None = None) -> Picture:
        num_classes = scale.num_classes or int(value.max()) + 1
        chosen = colours(num_classes)[np.clip(value, 0, num_classes - 1)]
        return (255 * chosen).astype(np.uint8)

    return draw


def legend(scale: Scale, value: Integer[np.ndarray, "h w"]) -> Picture | str:
    """Colour and name of every class; of more than `FEW` those in `value`; "" without names."""
    shown = list(range(len(scale.classes)))
    if len(scale.classes) > FEW:
        shown = [index for index in np.unique(value) if index < len(scale.classes)]
    if not len(shown):
        return ""
    table = (255 * colours(scale.num_classes or len(scale.classes))).astype(np.uint8)
    canvas = Image.new("RGB", (SHOWN, ROW * len(shown)), (255, 255, 255))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for row, index in enumerate(shown):
        top = row * ROW
        pen.rectangle((0, top + 1, ROW, top + ROW - 2), fill=tuple(table[index].tolist()))
        pen.text((ROW + 4, top), scale.classes[index], fill=(0, 0, 0), font=font)
    return np.asarray(canvas)


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
