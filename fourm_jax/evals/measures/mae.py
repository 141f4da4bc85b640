"""Mean absolute error, read against the mean of each pixel."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fourm_jax.tokenizers.signal import Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanAbsoluteError:
    """Mean |predicted - truth| over all values, in the unit of the field."""

    unit: str = ""
    metric: str = "mae"
    higher_is_better: bool = False

    def score(
        self, predicted: Float[np.ndarray, "*n h w"], truth: Float[np.ndarray, "n h w"]
    ) -> float:
        """Mean over the set; `predicted` may be one map for all."""
        return float(np.mean(np.abs(np.asarray(predicted, np.float64) - truth)))

    def parts(
        self, predicted: Float[np.ndarray, "*n h w"], truth: Float[np.ndarray, "n h w"]
    ) -> Float[np.ndarray, "n"]:
        """The number of every map."""
        return np.abs(np.asarray(predicted, np.float64) - truth).mean(axis=(1, 2))

    def total(self, parts: Sequence[float] | Float[np.ndarray, "n"]) -> float:
        """Mean over maps."""
        return float(np.mean(parts))

    def constant(self, values: Float[np.ndarray, "n h w"]) -> Float[np.ndarray, "h w"]:
        """The mean of each pixel."""
        return np.asarray(np.mean(values, axis=0, dtype=np.float64))


def make(signal: Signal | None, unit: str = "") -> MeanAbsoluteError:
    """Return the measure; `unit` is for people."""
    del signal
    return MeanAbsoluteError(unit=unit)
