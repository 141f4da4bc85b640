"""Values of text modalities as people type them into a page: a line each, or JSON.

Nothing here opens a file: what is typed into a page may come from a stranger.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import io

Corner = tuple[float, ...]
MAX_CHARACTERS = 10_000
# What a person reads beside the field, by form of the text.
HINTS: Mapping[str, str] = {
    "palette": "a colour each line: #ff0000 or 255 0 0",
    "boxes": "a box each line: cone 0.1 0.2 0.4 0.6 (name, left, top, right, bottom, 0..1)",
    "metadata": "a number each line: brightness 200",
    "captions": "a text; three underscores ask for what stands there",
}
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")
_RGB = re.compile(r"rgba?\(([^)]*)\)")  # of a colour picker


def read(text: str, spec: ModalitySpec) -> Any:
    """What `generate.conditions.encode` takes of one row, or None of an empty field.

    Raises:
      ValueError: a line that is no value of this modality, or a text that is too long.
    """
    text = text.strip()
    if not text:
        return None
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{spec.name}: {len(text)} characters, allowed: {MAX_CHARACTERS}")
    if spec.text_form not in _READERS:
        return io.parse_json(text, spec.name) if text[0] in "[{" else text
    if text[0] in "[{":
        return io.parse_json(text, spec.name)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _READERS[spec.text_form](lines, spec.name)


def number(text: str | None, name: str) -> float | None:
    """The number in a field; None of an empty one, as of one that nobody touched.

    Raises:
      ValueError: no finite number.
    """
    try:
        value = float(text) if text and text.strip() else None
    except ValueError:
        value = math.nan
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{name}: {text!r}, allowed: a number, or nothing")
    return value


def integer(text: str | None, name: str) -> int | None:
    """The whole number in a field, None of an empty one.

    Raises:
      ValueError: no whole number.
    """
    value = number(text, name)
    if value is not None and value != int(value):
        raise ValueError(f"{name}: {text!r}, allowed: a whole number, or nothing")
    return None if value is None else int(value)


def colour(text: str, name: str = "colour") -> list[int]:
    """Red, green, blue 0..255 of "#ff0000", "255 0 0" or "rgba(255, 0, 0, 1)".

    Raises:
      ValueError: none of these.
    """
    found = _HEX.fullmatch(text)
    if found:
        return list(bytes.fromhex(found[1]))
    inside = _RGB.fullmatch(text)
    words = re.split(r"[\s,]+", (inside[1] if inside else text).strip())
    values = [round(float(word)) for word in words[:3] if re.fullmatch(r"\d{1,3}(\.\d*)?", word)]
    if len(values) != 3 or max(values) > 255 or len(words) > (4 if inside else 3):
        raise ValueError(f"{name}: {text!r}, allowed: #ff0000, or 255 0 0")
    return values


def with_colour(text: str | None, picked: str) -> str:
    """The lines of a palette with one more colour; one that is none changes nothing."""
    try:
        return _with_line(text, "#" + bytes(colour(picked)).hex())
    except ValueError:
        return text or ""


def with_box(text: str | None, name: str | None, first: Corner, second: Corner) -> str:
    """The lines of boxes with one more between two corners (x, y as shares 0..1)."""
    (left, right), (top, bottom) = (sorted(pair) for pair in zip(first, second, strict=True))
    if left == right or top == bottom:
        return text or ""
    label = (name or "").strip() or "object"
    return _with_line(text, f"{label} {left:.3f} {top:.3f} {right:.3f} {bottom:.3f}")


def _with_line(text: str | None, line: str) -> str:
    return f"{(text or '').rstrip()}\n{line}".strip()


def _palette(lines: list[str], name: str) -> list[list[int]]:
    return [colour(line, name) for line in lines]


def _boxes(lines: list[str], name: str) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        *label, left, top, right, bottom = ["", "", "", "", *line.replace(",", " ").split()]
        try:
            corners = [float(word) for word in (left, top, right, bottom)]
        except ValueError:
            corners = []
        if not corners or not "".join(label):
            raise ValueError(f"{name}: {line!r}, allowed: cone 0.1 0.2 0.4 0.6")
        found.append({"box": corners, "label": " ".join(label).strip()})
    return found


def _metadata(lines: list[str], name: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in lines:
        words = re.split(r"[\s=:]+", line)
        try:
            (field, value) = words
            found[field] = float(value)
        except ValueError as error:
            raise ValueError(f"{name}: {line!r}, allowed: brightness 200") from error
    return found


_READERS: Mapping[str, Callable[[list[str], str], Any]] = {
    "palette": _palette,
    "boxes": _boxes,
    "metadata": _metadata,
}


def write(value: Any, spec: ModalitySpec) -> str:
    """A value of a raw record as `read` reads it, for examples."""
    if spec.text_form == "palette":
        return "\n".join("#" + bytes(map(int, row)).hex() for row in value)
    if spec.text_form == "boxes":
        rows = zip(value["classes"], value["boxes"], strict=True)
        return "\n".join(" ".join([name, *(f"{x:.3f}" for x in box)]) for name, box in rows)
    if spec.text_form == "metadata":
        return "\n".join(f"{field} {number:g}" for field, number in value.items())
    return value if isinstance(value, str) else ""
