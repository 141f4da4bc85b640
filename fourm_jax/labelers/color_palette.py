"""Labeler: the one to seven colours that stand best for the picture."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fourm_jax.labelers.base import Labeler, Output
from fourm_jax.modalities import palette

SIDE = 64  # of the thumbnail whose pixels are clustered


def make_labeler() -> Labeler:
    """Make `color_palette` in the published form, [{"1": [[r, g, b]], ..., "7": [...]}]: each
    palette is the best of its length. Pictures of fewer colours have fewer palettes."""

    def label(records):
        return [{"color_palette": [palettes(record["rgb"])]} for record in records]

    return Labeler(
        name="color_palette",
        inputs=("rgb",),
        outputs={"color_palette": Output()},
        label=label,
        settings={"side": SIDE},
    )


def palettes(rgb: UInt8[np.ndarray, "h w 3"]) -> dict[str, list[list[int]]]:
    """Palettes by length, each with its most frequent colour first: median cut, then k-means."""
    thumbnail = Image.fromarray(rgb)
    thumbnail.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    found = {}
    for count in range(1, palette.MAX_COLORS + 1):
        quantized = thumbnail.quantize(count, Image.Quantize.MEDIANCUT, kmeans=1)
        colors = np.asarray(quantized.getpalette()).reshape(-1, 3)
        sizes = np.bincount(np.asarray(quantized).ravel(), minlength=len(colors))
        order = [i for i in np.argsort(-sizes[: len(colors)], kind="stable") if sizes[i]]
        if len(order) < count:
            break
        found[str(count)] = colors[order].tolist()
    return found
