"""The second embedded data set, real pictures: 1,797 scanned handwritten digits of scikit-learn."""

import functools
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from fourm_jax.utils import errors, extras

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUM_TEST = 297  # of 1,797; the other 1,500 are for training
INK = 16.0  # largest value of a scanned pixel


def make_source(split: str, *, image_size: int = 32, num_records: int = 0) -> "DigitSource":
    """Source of the digits of "train" or "test".

    Args:
      image_size: pixels per side, a multiple of 8.
      num_records: the first so many; 0 = all.

    Raises:
      ValueError: another split or image size, more records than there are, or no scikit-learn.
    """
    return DigitSource(split, image_size, num_records)


class DigitSource:
    """Random access to raw records.

    Fields: `rgb` uint8 [h, w, 3], white ink on black, scaled up from 8 × 8; `edge` uint8 [h, w],
    255 on the outline of the ink; `caption`, "a handwritten seven"; `label`, the digit;
    `metadata` {field: number}.
    """

    def __init__(self, split: str, image_size: int = 32, num_records: int = 0) -> None:
        images, labels = _load()
        # One fixed order for everybody: writers come in runs in the original file.
        order = np.random.default_rng(0).permutation(len(images))
        parts = {"train": order[NUM_TEST:], "test": order[:NUM_TEST]}
        if split not in parts:
            raise ValueError(errors.unknown_value("split", split, parts))
        if image_size <= 0 or image_size % 8:
            raise ValueError(f"image_size {image_size}, allowed: positive multiples of 8")
        if not 0 <= num_records <= len(parts[split]):
            raise ValueError(f"num_records {num_records}, allowed: 0..{len(parts[split])}")
        chosen = parts[split][: num_records or None]
        self._images, self._labels, self._size = images[chosen], labels[chosen], image_size

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        grey = _enlarge(self._images[index], self._size)
        caption = f"a handwritten {WORDS[self._labels[index]]}"
        return {
            "rgb": np.repeat(grey[..., None], 3, axis=-1),
            "edge": outline(grey),
            "caption": caption,
            "label": np.int32(self._labels[index]),
            "metadata": {
                "brightness": float(grey.mean()),
                "contrast": float(grey.std()),
                "entropy": _entropy(grey),
                "caption_n_chars": len(caption),
                "caption_n_words": len(caption.split()),
            },
        }


def outline(grey: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Return 255 where a bright pixel (>= 128) touches a dark one along a row or column, else 0."""
    ink = grey >= 128
    padded = np.pad(ink, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.where(ink & ~inside, np.uint8(255), np.uint8(0))


def _enlarge(image: Float[np.ndarray, "8 8"], size: int) -> UInt8[np.ndarray, "h w"]:
    small = Image.fromarray(np.rint(image * (255 / INK)).astype(np.uint8))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC))


def _entropy(grey: UInt8[np.ndarray, "h w"]) -> float:
    """Entropy of the grey-level histogram in bits, 0..8."""
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


@functools.cache
def _load() -> tuple[Float[np.ndarray, "n 8 8"], Int[np.ndarray, "n"]]:
    digits = extras.require(
        "sklearn.datasets", extra="digits", who="the data set of digits"
    ).load_digits()
    return digits.images, digits.target
