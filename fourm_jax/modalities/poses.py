"""Human poses as text: a box, then four groups of numbers per human.

Source: docs/published.md#modalities, human_poses.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fourm_jax.modalities import coordinates
from fourm_jax.modalities.grammar import Grammar
from fourm_jax.modalities.parsed import Dropped, Parsed

# Of modalities in this form, see `serializers.Serializer`.
CROP, MEASURE, PICTURE = "poses", (), "humans"
NONE = "none"  # text of a picture without humans
HUMAN = "human"
NUM_CODES = 8  # of the pose tokenizer
GRAMMAR = Grammar(  # of a box and of codes of two axes (`code_token`), in groups after their names
    begin=("word",),
    v0=("v0", "v1", "word", "end"),
    v1=("v0", "v1", "v2", "word", "end"),
    v2=("v3",),
    v3=("word",),
    word=("word", "v0", "v1", "end"),
)


@dataclasses.dataclass(frozen=True)
class Group:
    """Numbers of one kind: `size` of them in a range (smallest, largest), or codes without one."""

    size: int
    bounds: tuple[float, float] | None = None

    def write(self, values: np.ndarray) -> str:
        """One token per value; values outside the range are clipped (published: not the betas)."""
        if self.bounds is None:
            return " ".join(coordinates.code_token(int(code)) for code in values)
        minimum, maximum = self.bounds
        values = np.clip(values, minimum, maximum)
        scale = (coordinates.NUM_BINS - 1) / (maximum - minimum)
        offset = -minimum * scale
        return coordinates.tokens(0, np.rint(scale * values + offset).astype(np.int64))

    def read(self, words: Sequence[coordinates.Word]) -> np.ndarray | None:
        """Values of exactly `size` tokens, or None where they are not of this kind."""
        if len(words) != self.size:
            return None
        if self.bounds is None:
            codes = [coordinates.read_code(word) for word in words]
            return None if None in codes else np.array(codes, np.int64)
        if set(coordinates.axes(words)) != {0}:
            return None
        shares = coordinates.dequantize(np.array([word.bin for word in words]))
        minimum, maximum = self.bounds
        return minimum + shares * (maximum - minimum)


GROUPS: Mapping[str, Group] = {
    "pose": Group(NUM_CODES),
    "global": Group(9, (-1.0, 1.0)),
    "camera": Group(3, (-1.0, 19.0)),
    "shape": Group(10, (-3.0, 3.0)),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Poses:
    """Humans of one picture.

    Attributes:
      boxes: [k, 4] xmin, ymin, xmax, ymax, 0..1 of width and height.
      codes: int [k, 8] body pose, 0..1023, of the pose tokenizer.
      rotations: [k, 9] global orientation, a row-major rotation matrix.
      cameras: [k, 3] scale and translation of the weak-perspective camera.
      betas: [k, 10] body shape.
    """

    boxes: Float[np.ndarray, "k 4"]
    codes: Int[np.ndarray, "k 8"]
    rotations: Float[np.ndarray, "k 9"]
    cameras: Float[np.ndarray, "k 3"]
    betas: Float[np.ndarray, "k 10"]

    def __post_init__(self):
        for field, width in (
            ("boxes", 4),
            ("codes", NUM_CODES),
            ("rotations", 9),
            ("cameras", 3),
            ("betas", 10),
        ):
            given = getattr(self, field)
            is_code = field == "codes"
            values = coordinates.whole(given, "pose code") if is_code else np.asarray(given, float)
            object.__setattr__(self, field, values.reshape(-1, width))
            if len(getattr(self, field)) != len(self.boxes):
                raise ValueError(f"{len(self.boxes)} humans with {len(values)} {field}")
        if self.codes.size and not 0 <= self.codes.min() <= self.codes.max() < 1024:
            raise ValueError(f"pose codes {self.codes.tolist()}, allowed: 0..1023")

    @classmethod
    def from_hmr(cls, raw: Mapping[str, Any], size: Sequence[int]) -> "Poses":
        """From the published record of HMR2.0 results.

        Args:
          raw: "bbox_xyxy" in pixels, "pred_smpl_params" with "global_orient" and "betas",
            "pred_cam" and "pose_tokenized"; empty without humans.
          size: (height, width) of the picture.
        """
        if not raw:
            return cls(*(np.zeros(0) for _ in range(5)))
        scale = np.array([size[1], size[0]] * 2)
        return cls(
            np.asarray(raw["bbox_xyxy"], np.float64).reshape(-1, 4) / scale,
            np.asarray(raw["pose_tokenized"]),
            np.asarray(raw["pred_smpl_params"]["global_orient"], np.float64),
            np.asarray(raw["pred_cam"], np.float64),
            np.asarray(raw["pred_smpl_params"]["betas"], np.float64),
        )

    def select(self, rows: np.ndarray) -> "Poses":
        """Humans of these rows."""
        return Poses(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def cropped(self, crop: Sequence[int], size: Sequence[int]) -> "Poses":
        """Humans whose boxes reach into a crop, boxes clipped to it; the rest of them unchanged.

        Args:
          crop, size: see `coordinates.in_crop`.
        """
        moved = coordinates.in_crop(self.boxes, crop, size)
        inside = (moved[:, :2] < 1).all(-1) & (moved[:, 2:] > 0).all(-1)
        cropped = dataclasses.replace(self, boxes=np.clip(moved, 0.0, 1.0))
        return cropped.select(np.flatnonzero(inside))

    def flipped(self, codes: Int[np.ndarray, "k 8"]) -> "Poses":
        """Humans of the picture mirrored left to right.

        Args:
          codes: codes of the mirrored body poses; only the pose tokenizer can compute them.
        """
        xmin, ymin, xmax, ymax = self.boxes.T
        mirror = np.diag([-1.0, 1.0, 1.0])
        rotations = mirror @ self.rotations.reshape(-1, 3, 3) @ mirror
        return Poses(
            np.stack([1 - xmax, ymin, 1 - xmin, ymax], -1),
            codes,
            rotations.reshape(-1, 9),
            self.cameras * np.array([1.0, -1.0, 1.0]),
            self.betas,
        )

    def to_chunks(
        self,
        rng: np.random.Generator | None = None,
        group_orders: Sequence[Sequence[int]] | None = None,
    ) -> list[str]:
        """One text per human, or ["none"].

        Args:
          rng: shuffles the four groups of each human, as published; None keeps their order.
          group_orders: per human, the order of the groups of `GROUPS` instead of a random one.
        """
        groups = list(zip(GROUPS.items(), self._values(), strict=True))
        chunks = []
        for i, bins in enumerate(coordinates.quantize(self.boxes)):
            order: Sequence[int] = coordinates.order(len(groups), rng)
            if group_orders is not None:
                order = group_orders[i]
            texts = [
                f"{name} {group.write(values[i])}"
                for (name, group), values in (groups[j] for j in order)
            ]
            chunks.append(" ".join([HUMAN, coordinates.box(bins), *texts]))
        return chunks or [NONE]

    def to_text(
        self,
        rng: np.random.Generator | None = None,
        group_orders: Sequence[Sequence[int]] | None = None,
    ) -> str:
        """All humans; the published text has one more space at its end."""
        return " ".join(self.to_chunks(rng, group_orders))

    def _values(self) -> tuple[np.ndarray, ...]:
        """Values of the groups, in the order of `GROUPS`."""
        return self.codes, self.rotations, self.cameras, self.betas

    @classmethod
    def from_text(cls, text: str) -> Parsed:
        """Read generated text; a human counts if its box and all four groups are whole.

        Returns:
          Parsed with a `Poses`, numbers at bin precision.
        """
        before, sections = coordinates.sections(coordinates.split(text), (HUMAN, NONE))
        dropped = []
        if before:
            dropped.append(Dropped(coordinates.join(before), "before the first human"))
        humans = []
        for head, *body in sections:
            if head.text == NONE:
                if body:
                    dropped.append(Dropped(coordinates.join(body), "after none"))
                continue
            human = _read_human(body)
            if isinstance(human, str):
                dropped.append(Dropped(coordinates.join([head, *body]), human))
            else:
                humans.append(human)
        columns = zip(*humans, strict=True) if humans else (np.zeros(0) for _ in range(5))
        return Parsed(cls(*(np.array(list(column)) for column in columns)), tuple(dropped))


def _read_human(words: Sequence[coordinates.Word]) -> tuple[np.ndarray, ...] | str:
    """(box, codes, rotation, camera, betas) of the words after "human", or why there is none."""
    if coordinates.axes(words[:4]) != (0, 1, 2, 3):
        return "human without box v0 v1 v2 v3"
    if words[0].bin > words[2].bin or words[1].bin > words[3].bin:
        return "human with xmin > xmax or ymin > ymax"
    found: dict[str, np.ndarray] = {}
    start = 4
    while start < len(words):
        name = words[start].text
        if name not in GROUPS or name in found:
            return f"expected one of the groups {sorted(set(GROUPS) - set(found))}, found {name!r}"
        end = start + 1 + GROUPS[name].size
        values = GROUPS[name].read(words[start + 1 : end])
        if values is None:
            return f"group {name!r} needs {GROUPS[name].size} values"
        found[name] = values
        start = end
    if set(found) != set(GROUPS):
        return f"human without {sorted(set(GROUPS) - set(found))}"
    (box,) = coordinates.dequantize_boxes(np.array([[word.bin for word in words[:4]]]))
    return box, *(found[name] for name in GROUPS)


def from_record(value: Any, size: Sequence[int] = (1, 1)) -> Poses:
    """Typed form of a record field: `Poses`, or the published results of HMR2.0.

    Args:
      value: numbers slightly outside of their ranges are clipped; humans whose box has no width
        or height are left out.
      size: (height, width) of the picture, for results that do not say it under the key "size".

    Raises:
      ValueError: anything else; a box that is not in the picture or has turned corners; numbers of
        a group outside of its range by more than `coordinates.MARGIN`.
    """
    return _inside(value, size).value


def _inside(value: Any, size: Sequence[int]) -> coordinates.Inside:
    """The poses of `from_record`, how many of their numbers were clipped, and how many humans are
    left out."""
    if isinstance(value, Mapping):
        raw = {key: part for key, part in value.items() if key != "size"}
        value = Poses.from_hmr(raw, value.get("size", size))
    if not isinstance(value, Poses):
        raise ValueError(
            f"poses of type {type(value).__name__}, allowed: Poses, or a mapping of HMR2.0 results "
            f"with key size = (height, width) of the picture"
        )
    unit = "shares 0..1 of the picture's width and height"
    boxes, count = coordinates.clip_boxes(value.boxes, 1.0, "box of human", unit)
    parts = [boxes, value.codes]
    for (name, group), values in zip(GROUPS.items(), value._values(), strict=True):
        if group.bounds is not None:
            clipped = coordinates.clip(values, *group.bounds, f"{name} of human")
            parts.append(clipped.value)
            count += clipped.num_clipped
    rows = np.flatnonzero(coordinates.has_extent(boxes))
    changes = coordinates.Changes(count, num_empty=len(boxes) - len(rows))
    return coordinates.Inside(Poses(*parts).select(rows), changes)


def count_changes(value: Any, size: Sequence[int] = (1, 1)) -> coordinates.Changes:
    """Numbers of a record field slightly outside of their ranges, and humans without extent."""
    return _inside(value, size).changes


def serialize(value: Any, rng: np.random.Generator | None = None) -> list[str]:
    """Chunks (one per human) of `Poses`, or of the published record with its "size" (h, w).

    Raises:
      ValueError: see `from_record`.
    """
    return from_record(value).to_chunks(rng)


def parse(text: str) -> Parsed:
    """Read generated text into `Poses`."""
    return Poses.from_text(text)


def to_record(value: Poses) -> Poses:
    """The poses: a record may hold them as they are."""
    return value
