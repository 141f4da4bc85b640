"""Distance between colour palettes, read against the mean first colour."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Num, UInt8

from fourm_jax.tokenizers.signal import Signal

FARTHEST = 255 * 3**0.5  # black from white


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaletteDistance:
    """Mean distance between each colour and the nearest of the other palette, both ways, 0..441.

    A palette without colours is as far as black from white.
    """

    metric: str = "colour_distance"
    unit: str = "of 441"
    higher_is_better: bool = False

    def score(
        self, predicted: Sequence[Num[np.ndarray, "_k 3"]], truth: Sequence[Num[np.ndarray, "_k 3"]]
    ) -> float:
        """Mean over the palettes."""
        return float(np.mean([_chamfer(p, t) for p, t in zip(predicted, truth, strict=True)]))

    def constant(self, values: Sequence[UInt8[np.ndarray, "_k 3"]]) -> Num[np.ndarray, "1 3"]:
        """The mean of the most frequent colours; none where all palettes are empty."""
        first = [np.reshape(value, (-1, 3))[0] for value in values if len(value)]
        return np.mean(first, axis=0)[None] if first else np.zeros((0, 3))


def make(signal: Signal | None) -> PaletteDistance:
    """Return the measure."""
    del signal
    return PaletteDistance()


def _chamfer(first: np.ndarray, second: np.ndarray) -> float:
    first, second = (np.asarray(p, np.float64).reshape(-1, 3) for p in (first, second))
    if not len(first) or not len(second):
        return FARTHEST
    distance = np.linalg.norm(first[:, None] - second[None], axis=-1)
    return float((distance.min(0).mean() + distance.min(1).mean()) / 2)
