"""Picture metadata as text: one chunk "v1=<field> v0=<bin>" per field.

Source: docs/published.md#modalities, metadata.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fourm_jax.modalities import coordinates
from fourm_jax.modalities.parsed import Dropped, Parsed
from fourm_jax.utils import errors

# Of modalities in this form, see `serializers.Serializer`.
CROP, MEASURE, PICTURE = "unchanged", ("metadata_error",), "numbers"


@runtime_checkable
class Encoding(Protocol):
    """How the values of a field become bins, and back."""

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
    """

    minimum: float
    maximum: float
    num_bins: int = 50

    def encode(self, value: float) -> int:
        share = (min(max(value, self.minimum), self.maximum) - self.minimum) / self._range
        return int(share * (self.num_bins - 1) + 1e-9)  # undoes the rounding error of decode

    def decode(self, bin: int) -> float | None:
        if bin >= self.num_bins:
            return None
        return self.minimum + bin / (self.num_bins - 1) * self._range

    def decode_published(self, bin: int) -> float:
        return self.minimum + bin / self.num_bins * self._range

    @property
    def _range(self) -> float:
        return self.maximum - self.minimum


@dataclasses.dataclass(frozen=True, kw_only=True)
class Levels:
    """A score in few levels: bin = number of edges that are <= value.

    Attributes:
      edges: ascending borders between the levels.
      values: one representative per level, which `decode` returns (the published one: the bin).
    """

    edges: tuple[float, ...]
    values: tuple[float, ...]

    def encode(self, value: float) -> int:
        return sum(edge <= value for edge in self.edges)

    def decode(self, bin: int) -> float | None:
        return self.values[bin] if bin < len(self.values) else None

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
        Field("colorfulness", 9, Linear(minimum=0, maximum=150)),
        Field("brightness", 10, Linear(minimum=0, maximum=255)),
        Field("contrast", 11, Linear(minimum=0, maximum=127)),
        Field("saturation", 12, Linear(minimum=0, maximum=255)),
        Field("entropy", 13, Linear(minimum=0, maximum=10)),
        Field("walkability", 14, Linear(minimum=0, maximum=1)),
        Field("objectness", 15, Linear(minimum=0, maximum=1)),
        Field("semantic_diversity", 16, Count()),
        Field("geometric_complexity", 17, Linear(minimum=0, maximum=0.75)),
        Field("occlusion_score", 18, Linear(minimum=0, maximum=0.25)),
        Field("watermark_score", 19, Levels(edges=(0.5,), values=(0.0, 1.0))),
        Field("aesthetic_score", 20, Levels(edges=(4.5, 5.5), values=(4.0, 5.0, 6.0))),
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


@dataclasses.dataclass(frozen=True, eq=False)
class Metadata:
    """Values of one picture by field name, any subset of the table."""

    values: Mapping[str, float]
    table: FieldTable = dataclasses.field(default=FIELDS, repr=False)

    def __post_init__(self):
        for name, value in self.values.items():
            self.table.named(name)
            if not math.isfinite(value):
                raise ValueError(f"metadata field {name!r} is {value}, allowed: finite numbers")

    def to_chunks(self, order: Sequence[str] | None = None) -> list[str]:
        """One text per field, in the order of these names or else of the mapping."""
        chunks = []
        for name in self.values if order is None else order:
            field = self.table.named(name)
            bin = field.encoding.encode(self.values[name])
            chunks.append(f"{coordinates.token(1, field.id)} {coordinates.token(0, bin)}")
        return chunks

    def to_text(self, order: Sequence[str] | None = None) -> str:
        """All chunks, joined."""
        return " ".join(self.to_chunks(order))

    @classmethod
    def from_text(cls, text: str, table: FieldTable = FIELDS, as_published: bool = False) -> Parsed:
        """Read generated text.

        Args:
          text: any text.
          table: fields that may occur.
          as_published: decode with the published arithmetic, take every bin, and let the last of
            several values of a field win; by default impossible bins and repeated fields are
            dropped.

        Returns:
          Parsed with a `Metadata` of the valid fields.
        """
        words = coordinates.split(text)
        values: dict[str, float] = {}
        dropped: list[Dropped] = []
        start = 0
        while start < len(words):
            pair = words[start : start + 2]
            if coordinates.axes(pair) != (1, 0):
                dropped.append(Dropped(words[start].text, "no field v1 v0"))
                start += 1
                continue
            start += 2
            field = table.numbered(pair[0].bin)
            if field is None:
                dropped.append(Dropped(coordinates.join(pair), "unknown field"))
                continue
            encoding = field.encoding
            decode = encoding.decode_published if as_published else encoding.decode
            value = decode(pair[1].bin)
            if value is None:
                dropped.append(Dropped(coordinates.join(pair), f"no value of {field.name!r}"))
            elif field.name in values and not as_published:
                dropped.append(Dropped(coordinates.join(pair), f"repeated field {field.name!r}"))
            else:
                values[field.name] = value
        return Parsed(cls(values, table), tuple(dropped))


def serialize(value: Any, rng: np.random.Generator | None = None) -> list[str]:
    """Chunks (one per field) of a record field; shuffled with an `rng`, as published.

    Raises:
      ValueError: an unknown field, a value that is not finite, or no mapping at all.
    """
    if isinstance(value, Mapping):
        value = Metadata(value)
    if not isinstance(value, Metadata):
        raise ValueError(
            f"metadata of type {type(value).__name__}, allowed: a mapping from field to number"
        )
    names = list(value.values)
    return value.to_chunks([names[i] for i in coordinates.order(len(names), rng)])


def parse(text: str) -> Parsed:
    """Read generated text into `Metadata`."""
    return Metadata.from_text(text)


def to_record(value: Metadata) -> dict[str, float]:
    """{field: number}."""
    return dict(value.values)
