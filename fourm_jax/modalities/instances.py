"""SAM instances as text: query points, each with the masks that contain it.

Source: docs/published.md#modalities.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from fourm_jax.modalities import coordinates
from fourm_jax.modalities.grammar import Grammar
from fourm_jax.modalities.parsed import Dropped, Parsed

# Of modalities in this form, see `serializers.Serializer`.
CROP, MEASURE, PICTURE = "per_crop", (), "answers"
NONE = "none"
POINT = "point"
POLYGON = "polygon"
NUM_CODES = 16  # of the mask tokenizer
SIZE = 224  # side of the crop, in whose pixels points and boxes count
NUM_POINTS = 7
GRAMMAR = Grammar(  # a point is v0 v1, a polygon a box and codes of two axes (`code_token`)
    begin=("word",),
    v0=("v0", "v1", "word", "end"),
    v1=("v0", "v1", "v2", "word", "end"),
    v2=("v3",),
    v3=("v0", "v1"),
    word=("word", "v0", "end"),
    bins=(
        ("v0", range(512)),
        ("v1", range(512)),
        ("v2", range(SIZE + 1)),
        ("v3", range(SIZE + 1)),
    ),
)

Point = Num[np.ndarray, "2"] | Sequence[float]  # x, y
Points = Int[np.ndarray, "p 2"] | Sequence[Sequence[int]]  # x, y of each


@dataclasses.dataclass(frozen=True, eq=False)
class Instances:
    """Masks of one crop.

    Attributes:
      polygons: outlines, each [n, 2] x, y in pixels of the crop.
      boxes: int [k, 4] xmin, ymin, xmax, ymax in the same pixels.
      codes: int [k, 16] of the mask tokenizer, 0..1023.
    """

    polygons: tuple[Float[np.ndarray, "_n 2"], ...]
    boxes: Int[np.ndarray, "k 4"]
    codes: Int[np.ndarray, "k 16"]

    def __post_init__(self):
        polygons = tuple(np.asarray(p, np.float64).reshape(-1, 2) for p in self.polygons)
        object.__setattr__(self, "polygons", polygons)
        for field, width in (("boxes", 4), ("codes", NUM_CODES)):
            values = coordinates.whole(getattr(self, field), f"{field} of instances")
            object.__setattr__(self, field, values.reshape(-1, width))
        if not len(self.polygons) == len(self.boxes) == len(self.codes):
            raise ValueError(
                f"{len(self.polygons)} polygons, {len(self.boxes)} boxes and {len(self.codes)} "
                f"rows of codes; they must be equally many"
            )
        if self.codes.size and not 0 <= self.codes.min() <= self.codes.max() < 1024:
            raise ValueError(f"mask codes {self.codes.tolist()}, allowed: 0..1023")

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Instances":
        """From the published record of one crop: "points" (polygons), "token_ids" and "bbox",
        which is ymin, xmin, ymax, xmax there."""
        boxes = coordinates.whole(record["bbox"], "bbox").reshape(-1, 4)
        return cls(tuple(record["points"]), boxes[:, [1, 0, 3, 2]], record["token_ids"])

    def containing(self, point: Point) -> list[int]:
        """Instances whose polygon contains the point (x, y), in their order."""
        return [i for i, polygon in enumerate(self.polygons) if _contains(polygon, point)]

    def to_chunks(self, points: Points, rng: np.random.Generator | None = None) -> list[str]:
        """One text per point: "point v0=<y> v1=<x>", then its instances or "none".

        Args:
          points: x, y in pixels of the crop, see `random_points`.
          rng: shuffles points and the instances of each, as published; None keeps their order.
        """
        points = np.asarray(points, np.int64).reshape(-1, 2)
        chunks = []
        for i in coordinates.order(len(points), rng):
            found = self.containing(points[i])
            answers = [
                f"{POLYGON} {coordinates.box(self.boxes[found[j]])} "
                + " ".join(coordinates.code_token(int(code)) for code in self.codes[found[j]])
                for j in coordinates.order(len(found), rng)
            ]
            x, y = points[i]
            place = f"{POINT} {coordinates.token(0, y)} {coordinates.token(1, x)}"
            chunks.append(" ".join([place, *(answers or [NONE])]))
        return chunks

    def to_text(self, points: Points) -> str:
        """All points in their order, joined."""
        return " ".join(self.to_chunks(points))


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """What generated text says about query points.

    Attributes:
      points: int [p, 2] x, y of each point.
      point_of: int [k] which point an instance answers.
      boxes: int [k, 4] xmin, ymin, xmax, ymax.
      codes: int [k, 16] of the mask tokenizer.
    """

    points: Int[np.ndarray, "p 2"]
    point_of: Int[np.ndarray, "k"]
    boxes: Int[np.ndarray, "k 4"]
    codes: Int[np.ndarray, "k 16"]


def random_points(
    rng: np.random.Generator,
) -> Int[np.ndarray, "p 2"]:
    """Uniform query points (x, y) inside the crop; the published "7 per side" are 7 in all."""
    return rng.integers(SIZE, size=(NUM_POINTS, 2))


def grid_points(per_side: int) -> Int[np.ndarray, "p 2"]:
    """`per_side`² evenly spaced query points (x, y), x slowest."""
    ticks = np.arange(1, per_side + 1) * SIZE // (per_side + 1)
    return np.stack(np.meshgrid(ticks, ticks, indexing="ij"), -1).reshape(-1, 2)


def from_text(text: str) -> Parsed:
    """Read any text, as models generate it; coordinates outside the crop are invalid.

    Returns:
      Parsed with `Answers`: whole polygons (a box inside the crop and 16 codes) of whole points.
    """
    before, sections = coordinates.sections(coordinates.split(text), (POINT, POLYGON, NONE))
    points, point_of, boxes, codes, dropped = [], [], [], [], []
    if before:
        dropped.append(Dropped(coordinates.join(before), "before the first point"))
    answering = False  # whether the last point was valid
    for section in sections:
        head, body = section[0].text, section[1:]
        if head == POINT:
            answering = coordinates.axes(body) == (0, 1) and max(w.bin for w in body) < SIZE
            reason = "" if answering else f"point without v0 v1 below {SIZE}"
            if answering:
                points.append([body[1].bin, body[0].bin])
        elif head == POLYGON:
            reason = _polygon_fault(body) if answering else "polygon without a valid point"
            if not reason:
                point_of.append(len(points) - 1)
                boxes.append([word.bin for word in body[:4]])
                codes.append([coordinates.read_code(word) for word in body[4:]])
        else:
            reason = "words after none" if body else ""
        if reason:
            dropped.append(Dropped(coordinates.join(section), reason))
    answers = Answers(
        np.array(points, np.int64).reshape(-1, 2),
        np.array(point_of, np.int64),
        np.array(boxes, np.int64).reshape(-1, 4),
        np.array(codes, np.int64).reshape(-1, NUM_CODES),
    )
    return Parsed(answers, tuple(dropped))


def _polygon_fault(body: Sequence[coordinates.Word]) -> str:
    """Why these words are no instance; "" if they are one."""
    if coordinates.axes(body[:4]) != (0, 1, 2, 3):
        return "polygon without box v0 v1 v2 v3"
    xmin, ymin, xmax, ymax = (word.bin for word in body[:4])
    if xmin >= xmax or ymin >= ymax or max(xmax, ymax) > SIZE:
        return f"polygon with an empty box or one beyond {SIZE}"
    if len(body) != 4 + NUM_CODES or any(coordinates.read_code(word) is None for word in body[4:]):
        return f"polygon needs {NUM_CODES} codes"
    return ""


def _contains(polygon: Float[np.ndarray, "n 2"], point: Point) -> bool:
    """Whether a ray from the point to the right crosses the outline an odd number of times."""
    x, y = point
    start, end = polygon, np.roll(polygon, -1, axis=0)
    crossing = (start[:, 1] > y) != (end[:, 1] > y)
    start, end = start[crossing], end[crossing]
    slope = (end[:, 0] - start[:, 0]) / (end[:, 1] - start[:, 1])
    return int((x < start[:, 0] + slope * (y - start[:, 1])).sum()) % 2 == 1


def _inside(value: Any) -> coordinates.Inside:
    """`Instances` of a record field, how many numbers were clipped to the crop, how many are gone.

    Those whose box has no width or height, as of a mask of one pixel's width, are left out.
    """
    if isinstance(value, Mapping) and {"points", "token_ids", "bbox"} <= set(value):
        value = Instances.from_record(value)
    if not isinstance(value, Instances):
        raise ValueError(
            f"instances of type {type(value).__name__}, allowed: Instances, or a mapping with "
            "points, token_ids and bbox"
        )
    unit = f"pixels 0..{SIZE} of the crop"
    boxes, count = coordinates.clip_boxes(value.boxes, SIZE, "box of instance", unit)
    outlines = [
        coordinates.clip(polygon, 0, SIZE, f"outline of instance {number}, point")
        for number, polygon in enumerate(value.polygons)
    ]
    rows = np.flatnonzero(coordinates.has_extent(boxes))
    polygons = tuple(outlines[row].value for row in rows)
    inside = Instances(polygons, boxes[rows], value.codes[rows])
    count += sum(outline.num_clipped for outline in outlines)
    changes = coordinates.Changes(count, num_empty=len(boxes) - len(rows))
    return coordinates.Inside(inside, changes)


def count_changes(value: Any) -> coordinates.Changes:
    """Numbers of a record field slightly outside of the crop, and masks without extent."""
    return _inside(value).changes


def serialize(value: Any, rng: np.random.Generator | None = None) -> list[str]:
    """Chunks (one per point) of `Instances` or of a published record, at random points.

    Raises:
      ValueError: another type, no `rng`, or boxes and outlines that are not in pixels of the crop.
    """
    if rng is None:
        raise ValueError("instances are written at points that an rng draws, and there is none")
    return _inside(value).value.to_chunks(random_points(rng), rng)


def parse(text: str) -> Parsed:
    """Read generated text into `Answers`."""
    return from_text(text)


def to_record(value: Answers) -> Answers:
    """The answers: they belong to query points, not to all masks that a record holds."""
    return value
