"""Mean squared error, read against the mean of each value."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num

from fourm_jax.tokenizers.signal import Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanSquaredError:
    """Mean squared difference; 1 is the variance of standardized features."""

    metric: str = "mse"
    unit: str = ""
    higher_is_better: bool = False

    def score(self, predicted: Num[np.ndarray, "..."], truth: Num[np.ndarray, "..."]) -> float:
        """Mean over the set."""
        return float(np.mean((np.asarray(predicted, np.float64) - truth) ** 2))

    def parts(
        self, predicted: Num[np.ndarray, "..."], truth: Num[np.ndarray, "n ..."]
    ) -> Float[np.ndarray, "n"]:
        """The number of every record; all have as many values."""
        squares = (np.asarray(predicted, np.float64) - truth) ** 2
        return np.broadcast_to(squares, truth.shape).reshape(len(truth), -1).mean(axis=1)

    def total(self, parts: Sequence[float] | Float[np.ndarray, "n"]) -> float:
        """Mean over records."""
        return float(np.mean(parts))

    def constant(self, values: Num[np.ndarray, "n ..."]) -> Num[np.ndarray, "..."]:
        """The mean of each value."""
        return values.mean(0)


def make(signal: Signal | None) -> MeanSquaredError:
    """Return the measure."""
    del signal
    return MeanSquaredError()
