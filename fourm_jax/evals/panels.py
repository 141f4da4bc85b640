"""Drawn values side by side, each under its name; every text is shown whole."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fourm_jax.evals.drawing import Cell
from fourm_jax.evals.pictures import SHOWN, Picture

CELL = SHOWN + 4  # pixels per column
GAP = 2
FONT = ImageFont.load_default(11)
LINE = 14  # pixels from one line of text to the next
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def sheet(cells: Mapping[str, Cell], *, num_columns: int = 7) -> Picture:
    """Labelled cells, e.g. {"rgb": picture, "caption": "a red cone"}, in rows of `num_columns`."""
    cells = cells or {"": "(nothing to draw)"}
    names = list(cells)
    groups = [names[at : at + num_columns] for at in range(0, len(names), num_columns)]
    return stacked([table(group, [("", [cells[name] for name in group])]) for group in groups])


def table(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]]) -> Picture:
    """A table with headings, and labels where a row has one; rows grow with their texts.

    Args:
      columns: headings, one per cell.
      rows: a label and one cell per column; pictures keep their proportions.
    """
    left = max((_width(line) for label, _ in rows for line in label.splitlines()), default=0)
    left += 2 * GAP if left else 0
    heads = [_wrapped(name) for name in columns]
    top = max(map(len, heads)) * LINE + GAP
    drawn = [[_drawn(cell) for cell in cells] for _, cells in rows]
    heights = [max(picture.height for picture in row) + 2 * GAP for row in drawn]
    canvas = Image.new("RGB", (left + CELL * len(columns), top + sum(heights)), WHITE)
    pen = ImageDraw.Draw(canvas)
    for column, head in enumerate(heads):
        _write(pen, head, (left + CELL * column + GAP, 0))
    for (label, _), row, height in zip(rows, drawn, heights, strict=True):
        _write(pen, label.splitlines(), (GAP, top + height // 3))
        for column, picture in enumerate(row):
            canvas.paste(picture, (left + CELL * column + GAP, top + GAP))
        top += height
    return np.asarray(canvas)


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Pictures of any width below each other, on white."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        np.pad(one, [(0, 0), (0, width - one.shape[1]), (0, 0)], constant_values=255)
        for one in pictures
    ]
    return np.concatenate(padded)


def enlarged(picture: Picture) -> Picture:
    """A picture in the size in which a column shows it."""
    return np.array(_drawn(picture))


def _drawn(cell: Cell) -> Image.Image:
    """A cell as an image of the width of a column."""
    if isinstance(cell, str):
        lines = _wrapped(cell)
        image = Image.new("RGB", (SHOWN, max(len(lines), 1) * LINE), WHITE)
        _write(ImageDraw.Draw(image), lines, (0, 0))
        return image
    image = Image.fromarray(np.ascontiguousarray(cell))
    size = (SHOWN, max(round(SHOWN * image.height / image.width), 1))
    enlarges = image.width <= SHOWN
    return image.resize(size, Image.Resampling.NEAREST if enlarges else Image.Resampling.BOX)


def _write(pen: ImageDraw.ImageDraw, lines: Sequence[str], place: tuple[int, int]) -> None:
    for number, line in enumerate(lines):
        pen.text((place[0], place[1] + number * LINE), line, fill=BLACK, font=FONT)


def _width(text: str) -> int:
    return int(np.ceil(FONT.getlength(text)))


def _wrapped(text: str) -> list[str]:
    """The lines of a text that fit a column; a word that is too long is broken."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            while _width(word) > SHOWN:
                fits = next(n for n in range(len(word), 0, -1) if _width(word[:n]) <= SHOWN)
                lines += [line, word[:fits]] if line else [word[:fits]]
                line, word = "", word[fits:]
            longer = f"{line} {word}".strip()
            if _width(longer) > SHOWN:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines
