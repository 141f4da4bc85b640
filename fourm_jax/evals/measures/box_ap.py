"""Average precision of detected boxes, as COCO computes it."""

import dataclasses
from collections.abc import Sequence

from fourm_jax.evals.measures import average_precision, box_f1
from fourm_jax.evals.measures.average_precision import Matches
from fourm_jax.evals.measures.box_f1 import Detections
from fourm_jax.tokenizers.signal import Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxAP:
    """Mean AP over IoU 0.50:0.95 (or at `threshold`), read against one usual box."""

    threshold: float = 0.0
    metric: str = "box_ap"
    unit: str = ""
    higher_is_better: bool = True

    def score(self, predicted: Sequence[Detections], truth: Sequence[Detections]) -> float:
        """Mean over the classes that are there, 0..1."""
        return self.total(self.parts(predicted, truth))

    def parts(
        self, predicted: Sequence[Detections], truth: Sequence[Detections]
    ) -> list[dict[str, Matches]]:
        """Matches of every picture."""
        return average_precision.per_picture(
            lambda p, t: box_f1.iou(box_f1.corners(p), box_f1.corners(t)), predicted, truth
        )

    def total(self, parts: Sequence[dict[str, Matches]]) -> float:
        """The number over pictures."""
        return average_precision.mean(parts, self.threshold or None)

    def constant(self, values: Sequence[Detections]) -> Detections:
        """The mean box of the most frequent class; none where there are no boxes."""
        return box_f1.BoxF1().constant(values)


def make(signal: Signal | None, threshold: float = 0.0) -> BoxAP:
    """Return the measure; threshold 0: the mean over 0.50:0.95.

    Raises:
      ValueError: a threshold that is none of these.
    """
    del signal
    average_precision.check_threshold(threshold)
    return BoxAP(threshold=threshold, metric=f"box_ap{threshold:g}" if threshold else "box_ap")
