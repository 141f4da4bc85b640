"""Errors of depth: relative, within a quarter, root mean square; with or without alignment."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Num

from fourm_jax.evals.measures import masked_mean
from fourm_jax.tokenizers.signal import Signal
from fourm_jax.utils import errors

SMALLEST = 1e-6  # predictions are at least so far away: ratios need it
DELTA = 1.25


def _abs_rel(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.abs(predicted - truth) / truth


def _delta1(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.maximum(predicted / truth, truth / predicted) < DELTA


def _rmse(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return (predicted - truth) ** 2


# Error of each pixel by metric; `rmse` takes the root of the mean.
ERRORS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "abs_rel": _abs_rel,
    "delta1": _delta1,
    "rmse": _rmse,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthError:
    """Mean over all pixels whose true depth is finite and above 0 (Eigen et al. 2014).

    With `align`, the prediction of each picture is first scaled and shifted to its truth by least
    squares (Ranftl et al. 2020), so that only the shape counts.
    """

    metric: str
    align: bool = False
    unit: str = ""

    @property
    def higher_is_better(self) -> bool:
        """δ1 is a share of right pixels."""
        return self.metric.startswith("delta1")

    def score(self, predicted: Num[np.ndarray, "*n h w"], truth: Num[np.ndarray, "n h w"]) -> float:
        """Mean over the pixels of the set; `predicted` may be one map for all."""
        return self.total(self.parts(predicted, truth))

    def parts(
        self, predicted: Num[np.ndarray, "*n h w"], truth: Num[np.ndarray, "n h w"]
    ) -> Float[np.ndarray, "n 2"]:
        """Sum of errors and number of pixels of every picture."""
        truth = np.asarray(truth, np.float64)
        predicted = np.broadcast_to(np.asarray(predicted, np.float64), truth.shape)
        rows = []
        for guess, real in zip(predicted, truth, strict=True):
            valid = _is_depth(real)
            if self.align:
                guess = aligned(guess, real, valid)
            own = ERRORS[self.metric.removesuffix("_aligned")](
                np.maximum(guess[valid], SMALLEST), real[valid]
            )
            rows.append((own.sum(), valid.sum()))
        return np.array(rows, np.float64)

    def total(self, parts: Float[np.ndarray, "n 2"] | list) -> float:
        """The number over pictures; nan where nothing counts."""
        mean = masked_mean.mean_of(parts)
        return float(np.sqrt(mean)) if self.metric.startswith("rmse") else mean

    def constant(self, values: Num[np.ndarray, "n h w"]) -> Num[np.ndarray, "h w"]:
        """The mean of each pixel over the maps that have a depth there."""
        values = np.asarray(values)
        return masked_mean.masked_mean(values, _is_depth(values))


def _is_depth(truth: Num[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    return np.isfinite(truth) & (truth > 0)


def aligned(
    predicted: Float[np.ndarray, "h w"],
    truth: Float[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
) -> Float[np.ndarray, "h w"]:
    """scale · predicted + shift with the smallest squared error over the valid pixels."""
    if valid.sum() < 2:
        return predicted
    columns = np.stack([predicted[valid], np.ones(valid.sum())], axis=1)
    scale, shift = np.linalg.lstsq(columns, truth[valid], rcond=None)[0]
    return scale * predicted + shift


def make(
    signal: Signal | None, metric: str = "abs_rel", align: bool = False, unit: str = ""
) -> DepthError:
    """Return the measure; `metric` is abs_rel, delta1 or rmse.

    Raises:
      ValueError: another metric.
    """
    del signal
    if metric not in ERRORS:
        raise ValueError(errors.unknown_value("metric of depth_error", metric, ERRORS))
    return DepthError(
        metric=metric + "_aligned" * align, align=align, unit=unit if metric == "rmse" else ""
    )
