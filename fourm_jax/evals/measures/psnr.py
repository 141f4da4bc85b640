"""Peak signal-to-noise ratio of pictures, read against the mean picture."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num, UInt8

from fourm_jax.tokenizers.signal import Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeakSignalToNoise:
    """10 log10(255² / mse) of each picture in dB, then the mean.

    An exact picture counts as an error of one step in one of its values.
    """

    metric: str = "psnr"
    unit: str = "dB"
    higher_is_better: bool = True

    def score(
        self, predicted: Num[np.ndarray, "*n h w c"], truth: UInt8[np.ndarray, "n h w c"]
    ) -> float:
        """Mean over the pictures; `predicted` may be one picture for all."""
        return self.total(self.parts(predicted, truth))

    def parts(
        self, predicted: Num[np.ndarray, "*n h w c"], truth: UInt8[np.ndarray, "n h w c"]
    ) -> Float[np.ndarray, "n"]:
        """The number of every picture."""
        difference = np.asarray(predicted, np.float64) - np.asarray(truth, np.float64)
        difference = np.broadcast_to(difference, np.asarray(truth).shape)
        errors = np.mean(difference**2, axis=tuple(range(1, difference.ndim)))
        smallest = 1 / np.prod(difference.shape[1:])
        return 10 * np.log10(255.0**2 / np.maximum(errors, smallest))

    def total(self, parts: Sequence[float] | Float[np.ndarray, "n"]) -> float:
        """Mean over pictures."""
        return float(np.mean(parts))

    def constant(self, values: UInt8[np.ndarray, "n h w c"]) -> Num[np.ndarray, "h w c"]:
        """The mean picture."""
        return np.rint(values.mean(0))


def make(signal: Signal | None) -> PeakSignalToNoise:
    """Return the measure."""
    del signal
    return PeakSignalToNoise()
