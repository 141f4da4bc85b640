"""Average precision of instance masks, as COCO computes it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from fourm_jax.evals.measures import average_precision
from fourm_jax.evals.measures.average_precision import Matches
from fourm_jax.tokenizers.signal import Signal

# {"masks": bool [k, h, w], "classes": k names, "scores": [k], of predictions}
Instances = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskAP:
    """Mean AP over IoU 0.50:0.95 (or at `threshold`), read against the usual mask of a class."""

    threshold: float = 0.0
    metric: str = "mask_ap"
    unit: str = ""
    higher_is_better: bool = True

    def score(self, predicted: Sequence[Instances], truth: Sequence[Instances]) -> float:
        """Mean over the classes that are there, 0..1."""
        return self.total(self.parts(predicted, truth))

    def parts(
        self, predicted: Sequence[Instances], truth: Sequence[Instances]
    ) -> list[dict[str, Matches]]:
        """Matches of every picture."""
        return average_precision.per_picture(
            lambda p, t: mask_iou(p["masks"], t["masks"]), predicted, truth
        )

    def total(self, parts: Sequence[dict[str, Matches]]) -> float:
        """The number over pictures."""
        return average_precision.mean(parts, self.threshold or None)

    def constant(self, values: Sequence[Instances]) -> Instances:
        """Of the most frequent class, the pixels that at least half of its masks cover.

        Nothing where there are no masks.
        """
        classes = [name for value in values for name in value["classes"]]
        if not classes:
            return {"masks": np.zeros((0, 1, 1), bool), "classes": []}
        usual = max(sorted(set(classes)), key=classes.count)
        masks = [
            mask
            for value in values
            for mask, name in zip(value["masks"], value["classes"], strict=True)
            if name == usual
        ]
        return {"masks": np.mean(masks, axis=0)[None] >= 0.5, "classes": [usual]}


def make(signal: Signal | None, threshold: float = 0.0) -> MaskAP:
    """Return the measure; threshold 0: the mean over 0.50:0.95.

    Raises:
      ValueError: a threshold that is none of these.
    """
    del signal
    average_precision.check_threshold(threshold)
    return MaskAP(threshold=threshold, metric=f"mask_ap{threshold:g}" if threshold else "mask_ap")


def mask_iou(first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, "k m"]:
    """Intersection over union of masks [k, h, w] and [m, h, w]; 0 where both are empty."""
    if not len(first) or not len(second):
        return np.zeros((len(first), len(second)))
    one, two = (
        np.asarray(masks, bool).reshape(len(masks), -1).astype(np.float64)
        for masks in (first, second)
    )
    both = one @ two.T
    union = one.sum(1)[:, None] + two.sum(1) - both
    return both / np.where(union > 0, union, 1.0)
