"""Detection metrics: boxes match if class and place agree."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

# {"boxes": float [k, 4] xmin ymin xmax ymax, "classes": k names}, best box first
Detections = Mapping[str, Sequence]


def iou(first: Float[np.ndarray, "a 4"], second: Float[np.ndarray, "b 4"]):
    """Intersection over union of each box of `first` with each of `second`: [a, b], 0..1."""
    first = np.asarray(first, np.float64).reshape(-1, 1, 4)
    second = np.asarray(second, np.float64).reshape(1, -1, 4)
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    overlap = np.prod(np.maximum(high - low, 0.0), axis=-1)
    areas = [
        np.prod(np.maximum(box[..., 2:] - box[..., :2], 0.0), axis=-1) for box in (first, second)
    ]
    union = areas[0] + areas[1] - overlap
    return np.where(union > 0, overlap / np.where(union > 0, union, 1.0), 0.0)


def num_matches(predicted: Detections, truth: Detections, threshold: float = 0.5) -> int:
    """Count matched pairs: in their order, predictions take the best free box of their class.

    A pair matches from IoU `threshold` on; no true box is taken twice (the rule of PASCAL VOC).
    """
    overlaps = iou(predicted["boxes"], truth["boxes"])
    same = np.array(predicted["classes"], object)[:, None] == np.array(truth["classes"], object)
    overlaps = np.where(same, overlaps, 0.0)
    matches = 0
    for row in range(len(overlaps)):
        if not overlaps.shape[1]:
            break
        best = int(np.argmax(overlaps[row]))
        if overlaps[row, best] >= threshold:
            matches += 1
            overlaps[:, best] = 0.0
    return matches


def precision_recall(
    predicted: Sequence[Detections], truth: Sequence[Detections], threshold: float = 0.5
) -> tuple[float, float]:
    """Precision and recall over a set of pictures; 0 where nothing was predicted or is there.

    Raises:
      ValueError: another number of predictions than of pictures.
    """
    if len(predicted) != len(truth):
        raise ValueError(f"{len(predicted)} predictions for {len(truth)} pictures")
    matches = sum(num_matches(p, t, threshold) for p, t in zip(predicted, truth, strict=True))
    num_predicted = sum(len(p["classes"]) for p in predicted)
    num_true = sum(len(t["classes"]) for t in truth)
    return matches / max(num_predicted, 1), matches / max(num_true, 1)
