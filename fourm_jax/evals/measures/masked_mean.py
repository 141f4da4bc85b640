"""Means of errors and of values where some pixels hold no value."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Num


def masked_mean(
    values: Num[np.ndarray, "n *pixels"], valid: Bool[np.ndarray, "n *_p"]
) -> Float[np.ndarray, "*pixels"]:
    """Mean of each pixel over the maps in which it is valid; where there is none, that of all.

    `valid` has the first axes of `values`; what axes follow belong to one pixel.
    """
    mask = valid.reshape(valid.shape + (1,) * (values.ndim - valid.ndim))
    total = np.where(mask, values, 0).sum(axis=0, dtype=np.float64)
    count = mask.sum(axis=0)
    of_all = total.sum(axis=tuple(range(valid.ndim - 1))) / max(count.sum(), 1)
    return np.where(count > 0, total / np.maximum(count, 1), of_all)


def finite_mean(values: Num[np.ndarray, "n *pixels"]) -> Float[np.ndarray, "*pixels"]:
    """The same where every finite value is valid."""
    values = np.asarray(values)
    return masked_mean(values, np.isfinite(values))


def finite_sums(
    errors: Float[np.ndarray, "n ..."], truth: Num[np.ndarray, "n ..."]
) -> Float[np.ndarray, "n 2"]:
    """Sum of errors and number of values of every record, of those whose truth is finite."""
    valid = np.isfinite(truth).reshape(len(truth), -1)
    kept = np.where(valid, errors.reshape(valid.shape), 0.0)
    return np.stack([kept.sum(axis=1), valid.sum(axis=1)], axis=1)


def mean_of(sums: Float[np.ndarray, "n 2"] | Sequence[Float[np.ndarray, "2"]]) -> float:
    """Mean of these sums over all that counts; nan where nothing does."""
    total, count = np.sum(sums, axis=0)
    return float(total / count) if count else float("nan")
