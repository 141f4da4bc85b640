"""Small HTML for notebooks: a table of escaped texts and pictures."""

import base64
import html
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

MAX_CHARACTERS = 500  # of one text
SIDE = 96  # pixels of a picture on the page


def table(title: str, rows: Mapping[str, Any]) -> str:
    """Names and values, one row each; a list is several cells."""
    lines = []
    for name, value in rows.items():
        cells = value if isinstance(value, list) else [value]
        shown = "".join(f"<td>{cell(one)}</td>" for one in cells)
        lines.append(f"<tr><th>{html.escape(name)}</th>{shown}</tr>")
    return f"<table><caption>{html.escape(title)}</caption>{''.join(lines)}</table>"


def cell(value: Any) -> str:
    """A picture of uint8 [h, w] or [h, w, 3], what other arrays hold, else an escaped text."""
    if isinstance(value, np.ndarray) and value.size and value.ndim:
        is_picture = value.ndim == 2 or (value.ndim == 3 and value.shape[2] == 3)
        if value.dtype == np.uint8 and is_picture:
            return _picture(value)
        value = f"{value.dtype} {list(value.shape)} in {value.min():.4g} … {value.max():.4g}"
    text = str(value)
    return html.escape(text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " …")


def _picture(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((4 * SIDE, 4 * SIDE))
    content = io.BytesIO()
    image.save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return (
        f'<img width="{SIDE}" style="image-rendering:pixelated" src="data:image/png;base64,{data}">'
    )
