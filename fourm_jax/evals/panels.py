"""Drawn values side by side, each under its name."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from fourm_jax.evals.drawing import Cell
from fourm_jax.evals.pictures import Picture

CELL = 160  # pixels per picture of a sheet
LINES = 11  # of text in one cell


def sheet(cells: Mapping[str, Cell]) -> Picture:
    """One row of labelled cells, e.g. {"rgb": picture, "caption": "a red cone"}."""
    canvas = Image.new("RGB", (CELL * len(cells), CELL + 14), (255, 255, 255))
    pen = ImageDraw.Draw(canvas)
    for column, (name, shown) in enumerate(cells.items()):
        left = column * CELL
        pen.text((left + 2, 1), name, fill=(0, 0, 0))
        if isinstance(shown, str):
            pen.text((left + 2, 16), _wrapped(shown), fill=(0, 0, 0))
        else:
            picture = Image.fromarray(shown).resize((CELL - 4, CELL - 4), Image.Resampling.NEAREST)
            canvas.paste(picture, (left + 2, 16))
    return np.asarray(canvas)


def _wrapped(text: str, width: int = 25) -> str:
    """Text in at most `LINES` lines of `width` characters."""
    lines: list[str] = [""]
    for number, paragraph in enumerate(text.splitlines()):
        lines += [""] * bool(number)
        for word in paragraph.split():
            if lines[-1] and len(lines[-1]) + len(word) >= width:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:LINES])
