"""The fields that metadata may have: name, number and how values become bins.

Source: docs/published.md#modalities, metadata.
"""

import dataclasses
import math
from typing import Protocol, runtime_checkable

from fourm_jax.modalities import coordinates
from fourm_jax.utils import errors


@runtime_checkable
class Encoding(Protocol):
    """How the values of a field become bins, and back.

    Attributes:
      range: smallest and largest value that a bin of its own stands for; those outside are clipped.
      possible: smallest and largest value that there can be; others are mistakes.
      num_bins: the bins 0..num_bins - 1 have a value.
    """

    @property
    def range(self) -> tuple[float, float]: ...

    @property
    def possible(self) -> tuple[float, float]: ...

    @property
    def num_bins(self) -> int: ...

    def encode(self, value: float) -> int:
        """Bin 0..999 of a value; values outside the range are clipped."""
        ...

    def decode(self, bin: int) -> float | None:
        """Value of a bin, with encode(decode(bin)) == bin; None for a bin that no value has."""
        ...

    def decode_published(self, bin: int) -> float:
        """What the published decoder returns (`decode_metadata` of ml-4m)."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Count:
    """Whole numbers in steps: bin = floor(value / step), at most 999."""

    step: int = 1

    @property
    def range(self) -> tuple[float, float]:
        return 0, coordinates.NUM_BINS * self.step - 1

    @property
    def possible(self) -> tuple[float, float]:
        return 0, 10**6  # the last bin stands for "this many or more"

    @property
    def num_bins(self) -> int:
        return coordinates.NUM_BINS

    def encode(self, value: float) -> int:
        return int(min(max(math.floor(value / self.step), 0), coordinates.NUM_BINS - 1))

    def decode(self, bin: int) -> int:
        return bin * self.step

    decode_published = decode


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """Real numbers: bin = floor(share of the range × (num_bins - 1)).

    The published decoder divides by num_bins instead of num_bins - 1, so that the largest value
    comes back 2 % too small; `decode` divides by what `encode` multiplied with.

    Attributes:
      extremes: `Encoding.possible` of a measure that may lie far outside of the published range;
        None: as far as `coordinates.MARGIN` says.
    """

    minimum: float
    maximum: float
    num_bins: int = 50
    extremes: tuple[float, float] | None = None

    @property
    def range(self) -> tuple[float, float]:
        return self.minimum, self.maximum

    @property
    def possible(self) -> tuple[float, float]:
        margin = coordinates.MARGIN * self._width
        return self.extremes or (self.minimum - margin, self.maximum + margin)

    def encode(self, value: float) -> int:
        share = (min(max(value, self.minimum), self.maximum) - self.minimum) / self._width
        return int(share * (self.num_bins - 1) + 1e-9)  # undoes the rounding error of decode

    def decode(self, bin: int) -> float | None:
        if bin >= self.num_bins:
            return None
        return self.minimum + bin / (self.num_bins - 1) * self._width

    def decode_published(self, bin: int) -> float:
        return self.minimum + bin / self.num_bins * self._width

    @property
    def _width(self) -> float:
        return self.maximum - self.minimum


@dataclasses.dataclass(frozen=True, kw_only=True)
class Levels:
    """A score in few levels: bin = number of edges that are <= value.

    Attributes:
      edges: ascending borders between the levels.
      values: one representative per level, which `decode` returns (the published one: the bin).
      possible: smallest and largest score that there can be.
    """

    edges: tuple[float, ...]
    values: tuple[float, ...]
    possible: tuple[float, float]

    @property
    def range(self) -> tuple[float, float]:
        return self.possible

    @property
    def num_bins(self) -> int:
        return len(self.values)

    def encode(self, value: float) -> int:
        return sum(edge <= value for edge in self.edges)

    def decode(self, bin: int) -> float | None:
        return self.values[bin] if bin < self.num_bins else None

    def decode_published(self, bin: int) -> int:
        return bin


@dataclasses.dataclass(frozen=True)
class Field:
    """One field: its name in the record, its number in the text, its encoding."""

    name: str
    id: int
    encoding: Encoding


@dataclasses.dataclass(frozen=True)
class FieldTable:
    """The fields that a data set may have; names and ids are unique."""

    fields: tuple[Field, ...]

    def __post_init__(self):
        names, ids = [f.name for f in self.fields], [f.id for f in self.fields]
        if len({*names}) != len(names) or len({*ids}) != len(ids):
            raise ValueError(f"field table with repeated names or ids: {names}, {ids}")

    def named(self, name: str) -> Field:
        """Field of this name; ValueError names the allowed ones."""
        by_name = {field.name: field for field in self.fields}
        if name not in by_name:
            raise ValueError(errors.unknown_value("metadata field", name, by_name))
        return by_name[name]

    def numbered(self, id: int) -> Field | None:
        """Field of this number, or None."""
        return next((field for field in self.fields if field.id == id), None)

    def sizes(self) -> tuple[int, ...]:
        """How many bins have a value, by the number of the field; 0 where there is none."""
        bins = {field.id: field.encoding.num_bins for field in self.fields}
        return tuple(bins.get(number, 0) for number in range(1 + max(bins)))


PUBLISHED = FieldTable(
    (
        Field("original_width", 0, Count(step=32)),
        Field("original_height", 1, Count(step=32)),
        Field("caption_n_chars", 2, Count()),
        Field("caption_n_words", 3, Count()),
        Field("caption_n_sentences", 4, Count()),
        Field("n_humans", 5, Count()),
        Field("n_sam_instances", 6, Count()),
        Field("n_coco_instances", 7, Count()),
        Field("coco_instance_diversity", 8, Count()),
        Field("colorfulness", 9, Linear(minimum=0, maximum=150, extremes=(0, 400))),
        Field("brightness", 10, Linear(minimum=0, maximum=255)),
        Field("contrast", 11, Linear(minimum=0, maximum=127)),
        Field("saturation", 12, Linear(minimum=0, maximum=255)),
        Field("entropy", 13, Linear(minimum=0, maximum=10)),
        Field("walkability", 14, Linear(minimum=0, maximum=1)),
        Field("objectness", 15, Linear(minimum=0, maximum=1)),
        Field("semantic_diversity", 16, Count()),
        Field("geometric_complexity", 17, Linear(minimum=0, maximum=0.75, extremes=(0, 1))),
        Field("occlusion_score", 18, Linear(minimum=0, maximum=0.25, extremes=(0, 1))),
        Field("watermark_score", 19, Levels(edges=(0.5,), values=(0.0, 1.0), possible=(0, 1))),
        Field(
            "aesthetic_score",
            20,
            Levels(edges=(4.5, 5.5), values=(4.0, 5.0, 6.0), possible=(-5, 15)),
        ),
    )
)

# All data sets share one table, so that models may be moved between them: a data set with other
# fields adds them here under new ids.
FIELDS = FieldTable(
    (
        *PUBLISHED.fields,
        Field("num_objects", 32, Count()),
        Field("camera_height", 33, Linear(minimum=1, maximum=3)),
        Field("camera_pitch", 34, Linear(minimum=0, maximum=45)),
    )
)
