"""Coordinate tokens "v<axis>=<bin>": the numbers of all text-like modalities.

Source: docs/published.md#text-tokenizer.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from fourm_jax.modalities import vocabulary

NUM_BINS = vocabulary.PUBLISHED.num_bins
NUM_AXES = vocabulary.PUBLISHED.num_axes
MARGIN = 0.1  # share of its range by which a value may lie outside; it is clipped and counted
_COORDINATE = re.compile(rf"(v[0-{NUM_AXES - 1}]=[0-9]{{1,3}}(?![0-9]))")


class Changes(NamedTuple):
    """What a record's values lost on their way into a text.

    Attributes:
      num_clipped: numbers that lay slightly outside of their range.
      num_empty: boxes, humans or masks that are left out, as their box has no width or height.
    """

    num_clipped: int = 0
    num_empty: int = 0


class Clipped(NamedTuple):
    """Numbers in their range, and how many of them lay slightly outside and were clipped."""

    value: np.ndarray
    num_clipped: int


class Inside(NamedTuple):
    """A record's value, typed as its module types it, in its range; and what it lost."""

    value: Any
    changes: Changes


class Word(NamedTuple):
    """One word of a text; a coordinate has an axis >= 0 and a bin, other words have -1 twice."""

    text: str
    axis: int = -1
    bin: int = -1


def token(axis: int, bin: int | np.integer) -> str:
    """Text of one coordinate token: `token(1, 25)` -> "v1=25".

    Raises:
      ValueError: axis or bin outside the vocabulary.
    """
    if not (0 <= axis < NUM_AXES and 0 <= bin < NUM_BINS):
        raise ValueError(
            f"coordinate v{axis}={bin}, allowed: v0..v{NUM_AXES - 1} = 0..{NUM_BINS - 1}"
        )
    return f"v{axis}={int(bin)}"


def tokens(axis: int, bins: Iterable[int | np.integer]) -> str:
    """Several coordinates of one axis: `tokens(0, [3, 5])` -> "v0=3 v0=5"."""
    return " ".join(token(axis, bin) for bin in bins)


def box(bins: Iterable[int | np.integer]) -> str:
    """One coordinate per axis: `box([1, 2, 3, 4])` -> "v0=1 v1=2 v2=3 v3=4"."""
    return " ".join(token(axis, bin) for axis, bin in enumerate(bins))


def in_crop(
    boxes: Float[np.ndarray, "k 4"], crop: Sequence[int], size: Sequence[int]
) -> Float[np.ndarray, "k 4"]:
    """Boxes as shares of a crop, where they were shares of the picture; not clipped to 0..1.

    Args:
      boxes: xmin, ymin, xmax, ymax.
      crop: top, left, height, width in pixels.
      size: (height, width) of the picture.
    """
    top, left, height, width = crop
    scale = np.array([size[1], size[0]] * 2) / np.array([width, height] * 2)
    return boxes * scale - np.array([left / width, top / height] * 2)


def quantize(values: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Bins round(value * 999) of values in [0, 1]; others are clipped into the range."""
    return np.rint(np.clip(values, 0.0, 1.0) * (NUM_BINS - 1)).astype(np.int64)


def dequantize(bins: Int[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Values in [0, 1] at the centres of bins 0..999: the inverse of `quantize`."""
    return np.asarray(bins, np.float64) / (NUM_BINS - 1)


def dequantize_boxes(bins: Int[np.ndarray, "k 4"]) -> Float[np.ndarray, "k 4"]:
    """Corners of boxes; a box within one bin gets half of its width, as no box has an extent of 0.

    Its corners are written as the same bins again.
    """
    corners = dequantize(bins)
    quarter = np.where(bins[:, :2] == bins[:, 2:], 0.25 / (NUM_BINS - 1), 0.0)
    return np.clip(corners + np.concatenate([-quarter, quarter], -1), 0.0, 1.0)


def clip(values: Num[np.ndarray, "k *n"], low: float, high: float, what: str) -> Clipped:
    """Values in low..high: one that lies outside by at most `MARGIN` of the range is clipped.

    Raises:
      ValueError: one that lies further outside, or NaN; names its row.
    """
    margin = MARGIN * (high - low)
    near = (values >= low - margin) & (values <= high + margin)  # False where NaN
    for row in np.flatnonzero(~near.all(axis=tuple(range(1, near.ndim)))):
        raise ValueError(f"{what} {row} is {values[row].tolist()}, allowed: {low:g} … {high:g}")
    return Clipped(np.clip(values, low, high), int(((values < low) | (values > high)).sum()))


def clip_boxes(corners: Num[np.ndarray, "k 4"], high: float, what: str, unit: str) -> Clipped:
    """Boxes xmin, ymin, xmax, ymax in 0..high, see `clip`; some may have no extent.

    Raises:
      ValueError: one that lies further outside, or has turned corners.
    """
    margin = MARGIN * high
    near = ((corners >= -margin) & (corners <= high + margin)).all(-1)  # False where NaN
    for row in np.flatnonzero(~(near & (corners[:, :2] <= corners[:, 2:]).all(-1))):
        raise ValueError(
            f"{what} {row} is {corners[row].tolist()}, expected xmin < xmax and ymin < ymax, as "
            f"{unit}"
        )
    clipped = np.clip(corners, 0, high)
    return Clipped(clipped, int((clipped != corners).sum()))


def has_extent(corners: Num[np.ndarray, "k 4"]) -> Bool[np.ndarray, "k"]:
    """Which boxes xmin, ymin, xmax, ymax have both a width and a height."""
    return np.all(corners[:, :2] < corners[:, 2:], axis=-1)


def whole(values: Any, what: str) -> Int[np.ndarray, "..."]:
    """Whole numbers, of any numeric type.

    Raises:
      ValueError: fractions (shares of a picture, where pixels are meant) or no numbers.
    """
    found = np.asarray(values)
    if found.size and found.dtype.kind not in "iuf":
        raise ValueError(f"{what} of type {found.dtype}, allowed: whole numbers")
    found = found.astype(np.float64)
    wrong = found[~(np.abs(found) < 2**31) | (found != np.rint(found))]
    if wrong.size:
        raise ValueError(f"{what} {wrong[0]:g}, allowed: whole numbers")
    return found.astype(np.int64)


def code_token(code: int) -> str:
    """One token for a code 0..1023: v0 for the lower, v1 for the upper 512 (poses, SAM masks)."""
    if not 0 <= code < 1024:
        raise ValueError(f"code {code}, allowed: 0..1023")
    return token(code // 512, code % 512)


def read_code(word: Word) -> int | None:
    """Code of a `code_token`, or None where the word is none."""
    if word.axis not in (0, 1) or word.bin >= 512:
        return None
    return word.axis * 512 + word.bin


def split(text: str) -> list[Word]:
    """Words of a text up to its first [EOS]; coordinates are found even when glued to others.

    `split("v0=3dog [EOS] x")` -> [Word("v0=3", 0, 3), Word("dog")]. Padding is left out.
    """
    words = []
    for chunk in text.split("[EOS]", 1)[0].replace("[PAD]", " ").split():
        for i, piece in enumerate(_COORDINATE.split(chunk)):
            if i % 2:
                words.append(Word(piece, int(piece[1]), int(piece[3:])))
            elif piece:
                words.append(Word(piece))
    return words


def sections(words: Sequence[Word], heads: Collection[str]) -> tuple[list[Word], list[list[Word]]]:
    """What comes before the first head word, then each head with the words up to the next one."""
    starts = [i for i, word in enumerate(words) if word.text in heads]
    ends = [*starts[1:], len(words)][: len(starts)]
    before = list(words[: starts[0] if starts else len(words)])
    return before, [list(words[start:end]) for start, end in zip(starts, ends, strict=True)]


def axes(words: Iterable[Word]) -> tuple[int, ...]:
    """Axis of each word, -1 for words that are no coordinates."""
    return tuple(word.axis for word in words)


def order(count: int, rng: np.random.Generator | None) -> list[int]:
    """0..count-1, shuffled with an `rng`."""
    return list(range(count)) if rng is None else rng.permutation(count).tolist()


def join(words: Iterable[Word]) -> str:
    """Text of the words, single-spaced."""
    return " ".join(word.text for word in words)
