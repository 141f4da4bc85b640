"""Structural similarity of pictures (Wang et al. 2004), read against the mean picture."""

import dataclasses

import numpy as np
from jaxtyping import Float, Num, UInt8

from fourm_jax.tokenizers.signal import Signal

RANGE, K1, K2 = 255.0, 0.01, 0.03
SIGMA, RADIUS = 1.5, 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class StructuralSimilarity:
    """Mean SSIM over pictures, channels and places, in Gaussian windows of 11 x 11; -1..1."""

    metric: str = "ssim"
    unit: str = ""
    higher_is_better: bool = True

    def score(
        self, predicted: Num[np.ndarray, "*n h w c"], truth: UInt8[np.ndarray, "n h w c"]
    ) -> float:
        """Mean over the pictures; `predicted` may be one picture for all.

        Raises:
          ValueError: pictures smaller than a window.
        """
        return self.total(self.parts(predicted, truth))

    def parts(
        self, predicted: Num[np.ndarray, "*n h w c"], truth: UInt8[np.ndarray, "n h w c"]
    ) -> list[float]:
        """The number of every picture."""
        if min(truth.shape[1:3]) < 2 * RADIUS + 1:
            raise ValueError(f"ssim of pictures {truth.shape[1:3]}, at least 11 x 11 are needed")
        predicted = np.broadcast_to(predicted, truth.shape)
        return [
            float(_ssim(p.astype(np.float64), t.astype(np.float64)).mean())
            for p, t in zip(predicted, truth, strict=True)
        ]

    def total(self, parts: list[float]) -> float:
        """Mean over pictures."""
        return float(np.mean(parts))

    def constant(self, values: UInt8[np.ndarray, "n h w c"]) -> Num[np.ndarray, "h w c"]:
        """The mean picture."""
        return np.rint(values.mean(0))


def make(signal: Signal | None) -> StructuralSimilarity:
    """Return the measure."""
    del signal
    return StructuralSimilarity()


def _ssim(first: Float[np.ndarray, "h w c"], second: Float[np.ndarray, "h w c"]) -> np.ndarray:
    """The map over places whose window lies inside."""
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    mean1, mean2 = _blur(first), _blur(second)
    var1, var2 = _blur(first**2) - mean1**2, _blur(second**2) - mean2**2
    both = _blur(first * second) - mean1 * mean2
    brightness = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    return brightness * (2 * both + c2) / (var1 + var2 + c2)


def _blur(values: Float[np.ndarray, "h w c"]) -> np.ndarray:
    """Gaussian means along both axes, where the whole window lies inside."""
    steps = np.arange(-RADIUS, RADIUS + 1)
    kernel = np.exp(-(steps**2) / (2 * SIGMA**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(values, len(kernel), axis=axis)
        values = windows @ kernel
    return values
