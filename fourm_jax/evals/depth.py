"""Depth error in metres, and the constant predictor."""

import numpy as np
from jaxtyping import Float


def mean_absolute_error(
    predicted: Float[np.ndarray, "n h w"], truth: Float[np.ndarray, "n h w"]
) -> float:
    """Mean |predicted - truth| over all pixels, in metres; `predicted` may be one map for all."""
    return float(np.mean(np.abs(np.asarray(predicted, np.float64) - truth)))


def per_pixel_mean(truth: Float[np.ndarray, "n h w"]) -> Float[np.ndarray, "h w"]:
    """Constant predictor: the mean depth of each pixel in a training set."""
    return np.mean(truth, axis=0, dtype=np.float64)
