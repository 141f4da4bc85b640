"""Mean intersection over union of class maps, accumulated over a whole set."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Integer

from fourm_jax.tokenizers.signal import Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanIoU:
    """Mean IoU of the classes from `first_class` on, read against each pixel's usual class."""

    num_classes: int
    first_class: int = 0
    ignored: int = -1
    metric: str = "miou"
    unit: str = ""
    higher_is_better: bool = True

    def score(
        self, predicted: Integer[np.ndarray, "*n h w"], truth: Integer[np.ndarray, "n h w"]
    ) -> float:
        """Mean over the classes that occur; `predicted` may be one map for all."""
        return self.total([self._counts(np.broadcast_to(predicted, truth.shape), truth)])

    def parts(
        self, predicted: Integer[np.ndarray, "*n h w"], truth: Integer[np.ndarray, "n h w"]
    ) -> list[Int[np.ndarray, "c c"]]:
        """Counts of classes of every picture."""
        predicted = np.broadcast_to(predicted, truth.shape)
        return [self._counts(p, t) for p, t in zip(predicted, truth, strict=True)]

    def total(self, parts: Sequence[Int[np.ndarray, "c c"]]) -> float:
        """Mean over the classes that occur in these pictures."""
        classes = range(self.first_class, self.num_classes)
        return mean_iou(np.sum(parts, axis=0), [one for one in classes if one != self.ignored])

    def per_class(
        self, predicted: Integer[np.ndarray, "*n h w"], truth: Integer[np.ndarray, "n h w"]
    ) -> Float[np.ndarray, "c"]:
        """IoU of every class; nan for one that does not occur or count."""
        ious = class_ious(self._counts(np.broadcast_to(predicted, truth.shape), truth))
        return np.where(np.arange(self.num_classes) == self.ignored, np.nan, ious)

    def _counts(
        self, predicted: Integer[np.ndarray, "..."], truth: Integer[np.ndarray, "..."]
    ) -> Int[np.ndarray, "c c"]:
        counted = truth != self.ignored
        return confusion(predicted[counted], truth[counted], self.num_classes)

    def constant(self, values: Integer[np.ndarray, "n h w"]) -> Int[np.ndarray, "h w"]:
        """The most frequent class of each pixel, of those that count."""
        return per_pixel_majority(values, self.num_classes, self.ignored)


def make(
    signal: Signal | None, metric: str = "miou", first_class: int = 0, ignored: int = -1
) -> MeanIoU:
    """Return the measure of the classes of `signal` from `first_class` on.

    Args:
      ignored: pixels of this true class do not count, nor does the class in the mean.

    Raises:
      ValueError: not a signal of classes.
    """
    if signal is None or signal.kind != "classes":
        raise ValueError("measure 'miou' needs a tokenizer of class maps")
    return MeanIoU(
        num_classes=signal.num_classes, first_class=first_class, ignored=ignored, metric=metric
    )


def confusion(
    predicted: Integer[np.ndarray, "..."], truth: Integer[np.ndarray, "..."], num_classes: int
) -> Int[np.ndarray, "c c"]:
    """Count pixels by true class (row) and predicted class (column); add those of several batches.

    Raises:
      ValueError: shapes that differ, or a class outside 0..num_classes-1.
    """
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted {predicted.shape}, truth {truth.shape}: shapes must be equal")
    for name, labels in (("predicted", predicted), ("true", truth)):
        check_classes(name, labels, num_classes)
    cells = truth.ravel().astype(np.int64) * num_classes + predicted.ravel()
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def check_classes(name: str, labels: Integer[np.ndarray, "..."], num_classes: int) -> None:
    """Raise ValueError for a class that does not exist."""
    if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"{name} class {wrong}, allowed: 0..{num_classes - 1}")


def class_ious(counts: Int[np.ndarray, "c c"]) -> Float[np.ndarray, "c"]:
    """IoU of every class; nan for one that occurs in neither truth nor prediction."""
    hits = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


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


def per_pixel_majority(
    truth: Integer[np.ndarray, "n h w"], num_classes: int, ignored: int = -1
) -> Int[np.ndarray, "h w"]:
    """Constant predictor: the most frequent class of each pixel in a training set.

    Where a pixel has none but the `ignored` one, that of all pixels.
    """
    labels = [label for label in range(num_classes) if label != ignored]
    counts = np.stack([np.sum(truth == label, axis=0) for label in labels])
    of_all = np.argmax(counts.sum(axis=(1, 2)))
    return np.array(labels)[np.where(counts.any(axis=0), np.argmax(counts, axis=0), of_all)]
