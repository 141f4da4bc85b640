"""Picture metadata as text: one chunk "v1=<field> v0=<bin>" per field.

Source: docs/published.md#modalities, metadata.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fourm_jax.modalities import coordinates
from fourm_jax.modalities.grammar import Grammar
from fourm_jax.modalities.metadata_fields import FIELDS, FieldTable
from fourm_jax.modalities.parsed import Dropped, Parsed

# Of modalities in this form, see `serializers.Serializer`.
CROP, MEASURE, PICTURE = "unchanged", ("metadata_error",), "numbers"
GRAMMAR = Grammar(
    begin=("v1", "end"),
    v1=("v0",),
    v0=("v1", "end"),
    bins=(("v1", range(len(FIELDS.sizes()))),),
    keyed=("v1", "v0", FIELDS.sizes()),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Metadata:
    """Values of one picture by field name, any subset of the table."""

    values: Mapping[str, float]
    table: FieldTable = dataclasses.field(default=FIELDS, repr=False)

    def __post_init__(self):
        for name, value in self.values.items():
            self.table.named(name)
            if not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise ValueError(f"metadata field {name!r} is {value!r}, allowed: finite numbers")

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


def _checked(value: Any) -> Metadata:
    """`Metadata` of a record field, of values that there can be."""
    if isinstance(value, Mapping):
        value = Metadata(value)
    if not isinstance(value, Metadata):
        raise ValueError(
            f"metadata of type {type(value).__name__}, allowed: a mapping from field to number"
        )
    for name, number in value.values.items():
        low, high = value.table.named(name).encoding.possible
        if not low <= number <= high:
            raise ValueError(f"metadata field {name!r} is {number}, allowed: {low:g} … {high:g}")
    return value


def count_changes(value: Any) -> coordinates.Changes:
    """How many values of a record field lie outside the range that bins stand for."""
    metadata = _checked(value)
    ranges = {name: metadata.table.named(name).encoding.range for name in metadata.values}
    outside = [not ranges[name][0] <= n <= ranges[name][1] for name, n in metadata.values.items()]
    return coordinates.Changes(num_clipped=sum(outside))


def serialize(value: Any, rng: np.random.Generator | None = None) -> list[str]:
    """Chunks (one per field) of a record field; shuffled with an `rng`, as published.

    Raises:
      ValueError: an unknown field, a value that is not finite or that there cannot be (a share
        where percents are given, a negative count), or no mapping at all.
    """
    value = _checked(value)
    names = list(value.values)
    return value.to_chunks([names[i] for i in coordinates.order(len(names), rng)])


def parse(text: str) -> Parsed:
    """Read generated text into `Metadata`."""
    return Metadata.from_text(text)


def to_record(value: Metadata) -> dict[str, float]:
    """{field: number}."""
    return dict(value.values)
