"""The mean over a training set of maps in which some pixels hold no value."""

import numpy as np
from jaxtyping import Bool, Float, Num


def masked_mean(
    values: Num[np.ndarray, "n h w ..."], valid: Bool[np.ndarray, "n h w"]
) -> Float[np.ndarray, "h w ..."]:
    """Mean of each pixel over the maps in which it is valid; where there is none, that of all."""
    mask = valid.reshape(valid.shape + (1,) * (values.ndim - valid.ndim))
    total = np.where(mask, values, 0).sum(axis=0, dtype=np.float64)
    count = mask.sum(axis=0)
    of_all = total.sum(axis=(0, 1)) / max(count.sum(), 1)
    return np.where(count > 0, total / np.maximum(count, 1), of_all)
