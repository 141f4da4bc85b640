"""F1 of detected boxes: they match if class and place agree."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from fourm_jax.tokenizers.signal import Signal

# {"boxes": float [k, 4] xmin ymin xmax ymax, "classes": k names}, best box first
Detections = Mapping[str, Sequence | np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxF1:
    """F1 of boxes of the right class at an IoU of 0.5 and more, read against one usual box."""

    metric: str = "f1_at_iou_0.5"
    unit: str = ""
    higher_is_better: bool = True

    def score(self, predicted: Sequence[Detections], truth: Sequence[Detections]) -> float:
        """F1 over the set, 0..1."""
        precision, recall = precision_recall(predicted, truth)
        return 2 * precision * recall / max(precision + recall, 1e-9)

    def constant(self, values: Sequence[Detections]) -> Detections:
        """The mean box of the most frequent class; none where there are no boxes."""
        classes = [name for value in values for name in value["classes"]]
        if not classes:
            return {"boxes": np.zeros((0, 4)), "classes": []}
        usual = max(sorted(set(classes)), key=classes.count)
        chosen = [
            box
            for value in values
            for box, name in zip(value["boxes"], value["classes"], strict=True)
            if name == usual
        ]
        return {"boxes": np.mean(chosen, axis=0)[None], "classes": [usual]}


def make(signal: Signal | None) -> BoxF1:
    """Return the measure."""
    del signal
    return BoxF1()


def iou(
    first: Float[np.ndarray, "a 4"], second: Float[np.ndarray, "b 4"]
) -> Float[np.ndarray, "a b"]:
    """Intersection over union of each box of `first` with each of `second`: [a, b], 0..1."""
    first = np.asarray(first, np.float64)[:, None]
    second = np.asarray(second, np.float64)[None]
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    overlap = np.prod(np.maximum(high - low, 0.0), axis=-1)
    areas = [
        np.prod(np.maximum(box[..., 2:] - box[..., :2], 0.0), axis=-1) for box in (first, second)
    ]
    union = areas[0] + areas[1] - overlap
    return np.where(union > 0, overlap / np.where(union > 0, union, 1.0), 0.0)


def corners(found: Detections) -> Float[np.ndarray, "k 4"]:
    """The boxes of a picture as an array, also where there is none."""
    return np.asarray(found["boxes"], np.float64).reshape(-1, 4)


def num_matches(predicted: Detections, truth: Detections) -> int:
    """Count matched pairs: in their order, predictions take the best free box of their class.

    A pair matches from IoU 0.5 on; no true box is taken twice (the rule of PASCAL VOC).
    """
    overlaps = iou(corners(predicted), corners(truth))
    same = np.array(predicted["classes"], object)[:, None] == np.array(truth["classes"], object)
    overlaps = np.where(same, overlaps, 0.0)
    matches = 0
    for row in range(len(overlaps)):
        if not overlaps.shape[1]:
            break
        best = int(np.argmax(overlaps[row]))
        if overlaps[row, best] >= 0.5:
            matches += 1
            overlaps[:, best] = 0.0
    return matches


def precision_recall(
    predicted: Sequence[Detections], truth: Sequence[Detections]
) -> tuple[float, float]:
    """Precision and recall over a set of pictures; 0 where nothing was predicted or is there.

    Raises:
      ValueError: another number of predictions than of pictures.
    """
    if len(predicted) != len(truth):
        raise ValueError(f"{len(predicted)} predictions for {len(truth)} pictures")
    matches = sum(num_matches(p, t) for p, t in zip(predicted, truth, strict=True))
    num_predicted = sum(len(p["classes"]) for p in predicted)
    num_true = sum(len(t["classes"]) for t in truth)
    return matches / max(num_predicted, 1), matches / max(num_true, 1)
