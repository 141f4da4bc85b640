"""Detected objects as text: four coordinates and a class name per box.

Source: docs/published.md#modalities, det.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fourm_jax.modalities import coordinates
from fourm_jax.modalities.grammar import Grammar
from fourm_jax.modalities.parsed import Dropped, Parsed

# Of modalities in this form, see `serializers.Serializer`.
CROP, MEASURE, PICTURE = "boxes", ("box_f1",), "boxes"
GRAMMAR = Grammar(
    begin=("v0", "end"),
    v0=("v1",),
    v1=("v2",),
    v2=("v3",),
    v3=("word",),
    word=("word", "v0", "end"),
)
MIN_SCORE = 0.6  # of the published pseudo labels
ORDERS = ("distance", "area", "score")


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of one picture.

    Attributes:
      boxes: [k, 4] xmin, ymin, xmax, ymax, 0..1 of the picture's width and height.
      classes: k class names.
      scores: [k] detection confidences; ground truth has none.
    """

    boxes: Float[np.ndarray, "k 4"]
    classes: tuple[str, ...]
    scores: Float[np.ndarray, "k"] | None = None

    def __post_init__(self):
        boxes = np.asarray(self.boxes, np.float64).reshape(-1, 4)
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.scores is not None:
            object.__setattr__(self, "scores", np.asarray(self.scores, np.float64).reshape(-1))
        counts = {len(self.classes)} | (set() if self.scores is None else {len(self.scores)})
        if counts != {len(boxes)}:
            raise ValueError(f"{len(boxes)} boxes with {sorted(counts)} classes or scores")

    @classmethod
    def from_instances(cls, instances: Sequence[Mapping[str, Any]]) -> "Boxes":
        """From the published list of {"boxes": 4 floats, "class_name": str, "score": float}."""
        return cls(
            np.array([instance["boxes"] for instance in instances], np.float64).reshape(-1, 4),
            tuple(instance["class_name"] for instance in instances),
            np.array([instance["score"] for instance in instances], np.float64),
        )

    def select(self, rows: Sequence[int] | np.ndarray) -> "Boxes":
        """Boxes of these rows, in their order."""
        rows = np.asarray(rows, np.int64)
        return Boxes(
            self.boxes[rows],
            tuple(self.classes[row] for row in rows),
            None if self.scores is None else self.scores[rows],
        )

    def filtered(self, min_score: float = MIN_SCORE) -> "Boxes":
        """Boxes with at least this score; all of them where there are no scores."""
        if self.scores is None:
            return self
        return self.select(np.flatnonzero(self.scores >= min_score))

    def strongest(self, count: int) -> "Boxes":
        """The `count` boxes of highest score, highest first; ground truth keeps its order."""
        boxes = self if self.scores is None else self.ordered("score")
        return boxes.select(range(min(count, len(boxes.classes))))

    def cropped(self, crop: Sequence[int], size: Sequence[int]) -> "Boxes":
        """Boxes in a crop, clipped to it; empty ones are left out.

        Args:
          crop, size: see `coordinates.in_crop`.
        """
        clipped = np.clip(coordinates.in_crop(self.boxes, crop, size), 0.0, 1.0)
        keep = np.flatnonzero(area(clipped) > 0)
        return dataclasses.replace(self, boxes=clipped).select(keep)

    def flipped(self) -> "Boxes":
        """Boxes of the picture mirrored left to right."""
        xmin, ymin, xmax, ymax = self.boxes.T
        return dataclasses.replace(self, boxes=np.stack([1 - xmax, ymin, 1 - xmin, ymax], -1))

    def ordered(self, order: str = "distance") -> "Boxes":
        """Boxes by distance of their upper left corner from the origin, nearest first.

        Args:
          order: "distance" (published), or "area" or "score", largest first.

        Raises:
          ValueError: an order that does not exist, or that needs scores where there are none.
        """
        if order == "distance":
            return self.select(np.argsort((self.boxes[:, :2] ** 2).sum(-1), kind="stable"))
        if order == "area":
            return self.select(np.argsort(-area(self.boxes), kind="stable"))
        if order == "score" and self.scores is not None:
            return self.select(np.argsort(-self.scores, kind="stable"))
        raise ValueError(
            f"order {order!r} of boxes (scores: {self.scores is not None}), allowed: {ORDERS}; "
            f"score needs scores"
        )

    def bins(self) -> Int[np.ndarray, "k 4"]:
        """Coordinates as bins 0..999."""
        return coordinates.quantize(self.boxes)

    def to_chunks(self) -> list[str]:
        """One text per box: "v0=<xmin> v1=<ymin> v2=<xmax> v3=<ymax> <class>"."""
        return [
            f"{coordinates.box(bins)} {name}"
            for bins, name in zip(self.bins(), self.classes, strict=True)
        ]

    def to_text(self) -> str:
        """All boxes in their present order; "" without boxes."""
        return " ".join(self.to_chunks())

    @classmethod
    def from_text(cls, text: str, classes: Collection[str] | None = None) -> Parsed:
        """Read generated text; coordinates come back at bin precision, without scores.

        Args:
          text: any text.
          classes: allowed class names; without it every name is taken.

        Returns:
          Parsed with a `Boxes`.
        """
        words = coordinates.split(text)
        bins, names, dropped = [], [], []
        start = 0
        while start < len(words):
            named = start  # end of the run of coordinates, start of the class name
            while named < len(words) and words[named].axis >= 0:
                named += 1
            end = named
            while end < len(words) and words[end].axis < 0:
                end += 1
            name = coordinates.join(words[named:end])
            reason = _fault(words[start:named], name, classes)
            if reason:
                dropped.append(Dropped(coordinates.join(words[start:end]), reason))
            else:
                bins.append([word.bin for word in words[start:named]])
                names.append(name)
            start = end
        corners = coordinates.dequantize_boxes(np.array(bins, np.int64).reshape(-1, 4))
        value = cls(corners, tuple(names))
        return Parsed(value, tuple(dropped))


def _fault(words: Sequence[coordinates.Word], name: str, classes: Collection[str] | None) -> str:
    """Why these coordinates and this name are no box; "" if they are one."""
    if coordinates.axes(words) != (0, 1, 2, 3):
        return "a box needs v0 v1 v2 v3 before its class name"
    if words[0].bin > words[2].bin or words[1].bin > words[3].bin:
        return "box with xmin > xmax or ymin > ymax"
    if not name:
        return "box without class name"
    if classes is not None and name not in classes:
        return f"unknown class name {name!r}"
    return ""


def area(boxes: Float[np.ndarray, "k 4"]) -> Float[np.ndarray, "k"]:
    """Areas of boxes; negative for turned-over ones of one axis."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def from_record(value: Any) -> Boxes:
    """Typed form of a record field: `Boxes`, {"boxes", "classes"[, "scores"]} or the published
    {"instances": [...]}; corners slightly outside of the picture are clipped to 0..1, and boxes
    without width or height are left out, as published.

    Raises:
      ValueError: anything else; a box that reaches out of the picture by more than
        `coordinates.MARGIN` (in pixels, as width and height) or has turned corners.
    """
    return _inside(value).value


def _inside(value: Any) -> coordinates.Inside:
    """The boxes of `from_record`, how many of their corners' coordinates were clipped, and how
    many are left out."""
    if isinstance(value, Mapping) and "instances" in value:
        value = Boxes.from_instances(value["instances"])
    elif isinstance(value, Mapping) and {"boxes", "classes"} <= set(value):
        value = Boxes(value["boxes"], tuple(value["classes"]), value.get("scores"))
    if not isinstance(value, Boxes):
        raise ValueError(
            f"boxes of type {type(value).__name__}, allowed: Boxes, a mapping with boxes and "
            "classes, or a mapping with instances"
        )
    unit = "shares 0..1 of the picture's width and height"
    corners, count = coordinates.clip_boxes(value.boxes, 1.0, "box", unit)
    inside = dataclasses.replace(value, boxes=corners)
    rows = np.flatnonzero(coordinates.has_extent(corners))
    changes = coordinates.Changes(count, num_empty=len(corners) - len(rows))
    return coordinates.Inside(inside.select(rows), changes)


def count_changes(value: Any) -> coordinates.Changes:
    """Coordinates of a record field slightly outside of the picture, and boxes without extent."""
    return _inside(value).changes


def serialize(value: Any, rng: np.random.Generator | None = None) -> list[str]:
    """Chunks (one per box) of a record field in the published order; draws nothing from `rng`."""
    return from_record(value).filtered().ordered().to_chunks()


def as_record(value: Any) -> dict[str, Any]:
    """The boxes of a record field that its text speaks of: those of enough score."""
    return to_record(from_record(value).filtered())


def parse(text: str) -> Parsed:
    """Read generated text into `Boxes`."""
    return Boxes.from_text(text)


def to_record(value: Boxes) -> dict[str, Any]:
    """{"boxes": float [k, 4], "classes": k names}."""
    return {"boxes": value.boxes, "classes": list(value.classes)}
