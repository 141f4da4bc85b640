"""Mean squared error, read against the mean of each value."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num

from fourm_jax.evals.measures import masked_mean
from fourm_jax.tokenizers.signal import Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanSquaredError:
    """Mean squared difference; 1 is the variance of standardized features.

    Values whose truth is not finite do not count.
    """

    metric: str = "mse"
    unit: str = ""
    higher_is_better: bool = False

    def score(self, predicted: Num[np.ndarray, "..."], truth: Num[np.ndarray, "n ..."]) -> float:
        """Mean over the set; `predicted` broadcasts."""
        return self.total(self.parts(predicted, truth))

    def parts(
        self, predicted: Num[np.ndarray, "..."], truth: Num[np.ndarray, "n ..."]
    ) -> Float[np.ndarray, "n 2"]:
        """Sum of squares and number of values of every record."""
        return masked_mean.finite_sums((np.asarray(predicted, np.float64) - truth) ** 2, truth)

    def total(self, parts: Float[np.ndarray, "n 2"] | Sequence[Float[np.ndarray, "2"]]) -> float:
        """Mean over the values of records; nan where nothing counts."""
        return masked_mean.mean_of(parts)

    def constant(self, values: Num[np.ndarray, "n *v"]) -> Float[np.ndarray, "*v"]:
        """The mean of each value over the records that have it."""
        return masked_mean.finite_mean(values)


def make(signal: Signal | None) -> MeanSquaredError:
    """Return the measure."""
    del signal
    return MeanSquaredError()
