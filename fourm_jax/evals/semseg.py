"""Mean intersection over union of class maps, accumulated over a whole set."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def confusion(
    predicted: Int[np.ndarray, "..."], truth: Int[np.ndarray, "..."], num_classes: int
) -> Int[np.ndarray, "c c"]:
    """Count pixels by true class (row) and predicted class (column); add those of several batches.

    Raises:
      ValueError: shapes that differ, or a class outside 0..num_classes-1.
    """
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted {predicted.shape}, truth {truth.shape}: shapes must be equal")
    for name, labels in (("predicted", predicted), ("true", truth)):
        if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
            wrong = labels.min() if labels.min() < 0 else labels.max()
            raise ValueError(f"{name} class {wrong}, allowed: 0..{num_classes - 1}")
    cells = truth.ravel().astype(np.int64) * num_classes + predicted.ravel()
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def mean_iou(counts: Int[np.ndarray, "c c"], classes: Sequence[int] | None = None) -> float:
    """Mean IoU (Everingham et al. 2010) over the classes that occur in truth or prediction.

    Args:
      counts: of `confusion`, summed over the set.
      classes: restricts the mean, e.g. to objects; nan if none of them occurs.
    """
    hits = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    chosen = np.zeros(len(counts), bool)
    chosen[slice(None) if classes is None else list(classes)] = True
    chosen &= union > 0
    return float(np.mean(hits[chosen] / union[chosen])) if chosen.any() else float("nan")


def per_pixel_majority(truth: Int[np.ndarray, "n h w"], num_classes: int) -> Int[np.ndarray, "h w"]:
    """Constant predictor: the most frequent class of each pixel in a training set."""
    counts = np.stack([np.sum(truth == label, axis=0) for label in range(num_classes)])
    return np.argmax(counts, axis=0)
