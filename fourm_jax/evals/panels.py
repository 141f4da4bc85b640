"""Any generated or recorded value as a picture or a line of text, and a sheet of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fourm_jax.evals import pictures
from fourm_jax.modalities.boxes import Boxes
from fourm_jax.modalities.captions import Caption
from fourm_jax.modalities.metadata import Metadata
from fourm_jax.modalities.palette import Palette

CELL = 160  # pixels per picture of a sheet
LINES = 11  # of text in one cell


def panel(value: Any) -> pictures.Picture | str:
    """Picture of a map or image, told apart by type and shape; text of everything else."""
    if isinstance(value, np.ndarray) and value.ndim >= 2:
        if value.ndim == 2 and value.dtype == np.uint8:
            return pictures.grey(value) if value.max() > 64 else pictures.classes(value, 20)
        if value.ndim == 2:
            return pictures.depth(value, float(value.min()), float(value.max()))
        if value.shape[-1] == 3:
            return value if value.dtype == np.uint8 else pictures.normals(value)
        return pictures.features(value, *pictures.principal_components(value[None]))
    if isinstance(value, Palette):
        return pictures.swatches(value.colors)
    if isinstance(value, Boxes):
        return "\n".join(
            f"{name} " + " ".join(f"{x:.2f}" for x in box)
            for name, box in zip(value.classes, value.boxes, strict=True)
        )
    if isinstance(value, Metadata):
        return "\n".join(f"{name} {number:.4g}" for name, number in value.values.items())
    return value.text if isinstance(value, Caption) else str(value)


def sheet(values: Mapping[str, Any]) -> pictures.Picture:
    """One row of labelled cells, e.g. {"rgb": image, "caption": Caption(...)}."""
    canvas = Image.new("RGB", (CELL * len(values), CELL + 14), (255, 255, 255))
    pen = ImageDraw.Draw(canvas)
    for column, (name, value) in enumerate(values.items()):
        left, shown = column * CELL, panel(value)
        pen.text((left + 2, 1), name, fill=(0, 0, 0))
        if isinstance(shown, str):
            pen.text((left + 2, 16), _wrapped(shown), fill=(0, 0, 0))
        else:
            picture = Image.fromarray(shown).resize((CELL - 4, CELL - 4), Image.NEAREST)
            canvas.paste(picture, (left + 2, 16))
    return np.asarray(canvas)


def _wrapped(text: str, width: int = 25) -> str:
    """Text in lines of `width` characters."""
    lines: list[str] = [""]
    for number, paragraph in enumerate(text.splitlines()):
        lines += [""] * bool(number)
        for word in paragraph.split():
            if lines[-1] and len(lines[-1]) + len(word) >= width:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:LINES])
