"""Mean absolute error, read against the mean of each pixel."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fourm_jax.evals.measures import masked_mean
from fourm_jax.tokenizers.signal import Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanAbsoluteError:
    """Mean |predicted - truth| in the unit of the field, over all pixels whose truth is finite."""

    unit: str = ""
    metric: str = "mae"
    higher_is_better: bool = False

    def score(
        self, predicted: Float[np.ndarray, "*n h w"], truth: Float[np.ndarray, "n h w"]
    ) -> float:
        """Mean over the set; `predicted` may be one map for all."""
        return self.total(self.parts(predicted, truth))

    def parts(
        self, predicted: Float[np.ndarray, "*n h w"], truth: Float[np.ndarray, "n h w"]
    ) -> Float[np.ndarray, "n 2"]:
        """Sum of errors and number of pixels of every map."""
        return masked_mean.finite_sums(np.abs(np.asarray(predicted, np.float64) - truth), truth)

    def total(self, parts: Float[np.ndarray, "n 2"] | Sequence[Float[np.ndarray, "2"]]) -> float:
        """Mean over the pixels of maps; nan where nothing counts."""
        return masked_mean.mean_of(parts)

    def constant(self, values: Float[np.ndarray, "n h w"]) -> Float[np.ndarray, "h w"]:
        """The mean of each pixel over the maps that have a value there."""
        return masked_mean.finite_mean(values)


def make(signal: Signal | None, unit: str = "") -> MeanAbsoluteError:
    """Return the measure; `unit` is for people."""
    del signal
    return MeanAbsoluteError(unit=unit)
