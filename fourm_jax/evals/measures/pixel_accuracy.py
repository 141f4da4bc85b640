"""Share of pixels with the right class, over a whole set."""

import dataclasses

import numpy as np
from jaxtyping import Int, Integer

from fourm_jax.evals.measures import miou
from fourm_jax.tokenizers.signal import Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelAccuracy:
    """Share of the pixels whose true class counts, read against each pixel's usual class."""

    num_classes: int
    ignored: int = -1
    metric: str = "pixel_accuracy"
    unit: str = ""
    higher_is_better: bool = True

    def score(
        self, predicted: Integer[np.ndarray, "*n h w"], truth: Integer[np.ndarray, "n h w"]
    ) -> float:
        """Share over the set, 0..1; nan where nothing counts."""
        return self.total(self.parts(predicted, truth))

    def parts(
        self, predicted: Integer[np.ndarray, "*n h w"], truth: Integer[np.ndarray, "n h w"]
    ) -> Int[np.ndarray, "n 2"]:
        """Right pixels and pixels that count, of every picture."""
        predicted = np.broadcast_to(predicted, truth.shape)
        counts = truth != self.ignored
        miou.check_classes("true", truth[counts], self.num_classes)
        right = counts & (predicted == truth)
        return np.stack([right.sum(axis=(1, 2)), counts.sum(axis=(1, 2))], axis=1)

    def total(self, parts: Integer[np.ndarray, "n 2"] | list) -> float:
        """Share over pictures."""
        right, count = np.sum(parts, axis=0)
        return float(right / count) if count else float("nan")

    def constant(self, values: Integer[np.ndarray, "n h w"]) -> Int[np.ndarray, "h w"]:
        """The most frequent class of each pixel, of those that count."""
        return miou.per_pixel_majority(values, self.num_classes, self.ignored)


def make(signal: Signal | None, ignored: int = -1) -> PixelAccuracy:
    """Return the measure; pixels of true class `ignored` do not count.

    Raises:
      ValueError: not a signal of classes.
    """
    if signal is None or signal.kind != "classes":
        raise ValueError("measure 'pixel_accuracy' needs a tokenizer of class maps")
    return PixelAccuracy(num_classes=signal.num_classes, ignored=ignored)
