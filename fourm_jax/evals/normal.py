"""Angle between predicted and true surface normals."""

import numpy as np
from jaxtyping import Float


def mean_angular_error_deg(
    predicted: Float[np.ndarray, "... 3"], truth: Float[np.ndarray, "... 3"]
) -> float:
    """Mean angle in degrees over all pixels, of vectors of any length; `predicted` broadcasts.

    A predicted vector without direction counts 90 degrees.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    cosine = np.sum(_unit(predicted) * _unit(truth), axis=-1)
    return float(np.mean(np.rad2deg(np.arccos(np.clip(cosine, -1.0, 1.0)))))


def per_pixel_mean(truth: Float[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """Constant predictor: the mean normal of each pixel in a training set, of unit length."""
    return _unit(np.mean(truth, axis=0, dtype=np.float64))


def _unit(vectors: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 3"]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length < 1e-12, 1.0, length)
