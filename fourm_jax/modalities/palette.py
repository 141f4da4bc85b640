"""A colour palette as text: the number of colours, then three values per colour.

Source: docs/published.md#modalities.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fourm_jax.modalities import coordinates
from fourm_jax.modalities.grammar import Grammar
from fourm_jax.modalities.parsed import Dropped, Parsed

# Of modalities in this form, see `serializers.Serializer`.
CROP, MEASURE, PICTURE = "unchanged", ("palette_distance",), "swatches"
MAX_COLORS = 7
GRAMMAR = Grammar(
    begin=("v1",),
    v1=("v0",),
    v0=("v0", "end"),
    bins=(("v0", range(256)), ("v1", range(1, MAX_COLORS + 1))),
    counted=("v1", "v0", 3),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Palette:
    """Colours of one picture.

    Attributes:
      colors: uint8 [n, 3] RGB, n in 1..7 (an empty one comes only from unreadable text).
    """

    colors: UInt8[np.ndarray, "n 3"]

    def __post_init__(self):
        colors = coordinates.whole(self.colors, "palette with a value").reshape(-1, 3)
        if colors.size and (colors.min() < 0 or colors.max() > 255):
            raise ValueError(f"colours {colors.tolist()}, allowed: values 0..255")
        if len(colors) > MAX_COLORS:
            raise ValueError(f"palette of {len(colors)} colours, allowed: 1..{MAX_COLORS}")
        object.__setattr__(self, "colors", colors.astype(np.uint8))

    def to_chunks(self) -> list[str]:
        """ "v1=<n>", then "v0=<r> v0=<g> v0=<b>" per colour."""
        colors = [coordinates.tokens(0, color) for color in self.colors]
        return [coordinates.token(1, len(colors)), *colors]

    def to_text(self) -> str:
        """All of it: "v1=<n> v0=<r> v0=<g> v0=<b> ..."."""
        return " ".join(self.to_chunks())

    @classmethod
    def from_text(cls, text: str) -> Parsed:
        """Read generated text: the first count, then whole colours up to that many.

        Returns:
          Parsed with a `Palette`; fewer colours than announced are taken and reported.
        """
        words = coordinates.split(text)
        dropped: list[Dropped] = []
        if words and words[0].axis == 1 and 1 <= words[0].bin <= MAX_COLORS:
            count, words = words[0].bin, words[1:]
        else:
            count = MAX_COLORS
            dropped.append(Dropped(coordinates.join(words[:1]), f"no count v1=1..{MAX_COLORS}"))
        colors: list[list[int]] = []
        start = 0
        while start < len(words):
            color = words[start : start + 3]
            valid = coordinates.axes(color) == (0, 0, 0) and max(w.bin for w in color) <= 255
            if valid and len(colors) < count:
                colors.append([word.bin for word in color])
                start += 3
                continue
            reason = f"more than {count} colours" if valid else "no colour v0 v0 v0 in 0..255"
            size = 3 if valid else 1
            dropped.append(Dropped(coordinates.join(words[start : start + size]), reason))
            start += size
        if count != len(colors) and not dropped:
            dropped.append(Dropped("", f"{count} colours announced, {len(colors)} found"))
        return Parsed(cls(np.array(colors, np.int64).reshape(-1, 3)), tuple(dropped))


def from_record(value: Any, rng: np.random.Generator | None = None) -> Palette:
    """Typed form of a record field.

    Args:
      value: `Palette`, array [n, 3], or the published [{"1": [1 colour], ..., "7": [7 colours]}],
        of which one length is drawn.
      rng: for the published form.

    Raises:
      ValueError: colours that are no palette (shares 0..1 instead of 0..255, none at all), or the
        published form without an rng.
    """
    palette = _typed(value, rng)
    if not len(palette.colors):
        raise ValueError(f"palette without colours, allowed: 1..{MAX_COLORS}")
    return palette


def _typed(value: Any, rng: np.random.Generator | None) -> Palette:
    if isinstance(value, Palette):
        return value
    if _has_lengths(value):
        if rng is None:
            raise ValueError("a palette of several lengths needs an rng to choose one")
        lengths = sorted(value[0], key=int)
        return Palette(np.array(value[0][lengths[rng.integers(len(lengths))]]))
    return Palette(np.asarray(value))


def _has_lengths(value: Any) -> bool:
    """Whether this is the published form."""
    return isinstance(value, Sequence) and len(value) > 0 and isinstance(value[0], Mapping)


def count_changes(value: Any) -> coordinates.Changes:
    """None: a palette with a value outside of 0..255 is refused."""
    for colors in value[0].values() if _has_lengths(value) else [value]:
        from_record(colors)
    return coordinates.Changes()


def serialize(value: Any, rng: np.random.Generator | None = None) -> list[str]:
    """Chunks (count, then one per colour) of a record field."""
    return from_record(value, rng).to_chunks()


def as_record(value: Any) -> UInt8[np.ndarray, "n 3"]:
    """The colours of a record field; of several lengths those of the longest."""
    longest = value[0][max(value[0], key=int)] if _has_lengths(value) else value
    return to_record(from_record(longest))


def parse(text: str) -> Parsed:
    """Read generated text into a `Palette`."""
    return Palette.from_text(text)


def to_record(value: Palette) -> UInt8[np.ndarray, "n 3"]:
    """The colours."""
    return value.colors
