"""F1 of maps that are on or off, such as edges."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer, Num

from fourm_jax.tokenizers.signal import Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinaryF1:
    """F1 of the pixels that are on (above the middle of `low` and `high`), over the set; 0..1."""

    low: float
    high: float
    metric: str = "f1"
    unit: str = ""
    higher_is_better: bool = True

    @property
    def middle(self) -> float:
        """From where on a pixel is on."""
        return (self.low + self.high) / 2

    def score(self, predicted: Num[np.ndarray, "..."], truth: Num[np.ndarray, "..."]) -> float:
        """F1 of the set; 1 where nothing is on in either."""
        return self.total(self.parts(predicted, truth))

    def parts(
        self, predicted: Num[np.ndarray, "..."], truth: Num[np.ndarray, "n ..."]
    ) -> Integer[np.ndarray, "n 2"]:
        """Pixels that are on in both, and the sum of those of each, of every map."""
        wanted = (np.asarray(truth) > self.middle).reshape(len(truth), -1)
        shown = np.broadcast_to(np.asarray(predicted) > self.middle, np.shape(truth))
        shown = shown.reshape(wanted.shape)
        return np.stack([(shown & wanted).sum(1), shown.sum(1) + wanted.sum(1)], axis=1)

    def total(self, parts: Sequence[Any] | Integer[np.ndarray, "n 2"]) -> float:
        """F1 over maps."""
        both, each = np.sum(parts, axis=0)
        return float(2 * both / each) if each else 1.0

    def constant(self, values: Num[np.ndarray, "n ..."]) -> Num[np.ndarray, "..."]:
        """The map of likely pixels with the best F1 on the training set."""
        share = np.mean(values > self.middle, axis=0)
        cuts = np.quantile(share, np.linspace(0, 0.9, 10))
        maps = [np.where(share >= cut, self.high, self.low) for cut in cuts]
        return max(maps, key=lambda one: self.score(np.broadcast_to(one, values.shape), values))


def make(signal: Signal | None, metric: str = "f1") -> BinaryF1:
    """Return the measure under another name of its number; `signal` gives the two values.

    Raises:
      ValueError: not a binary signal.
    """
    if signal is None or signal.kind != "binary":
        raise ValueError("measure 'f1' needs a tokenizer of a binary signal")
    return BinaryF1(low=signal.low, high=signal.high, metric=metric)
