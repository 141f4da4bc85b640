"""Read the records behind a batch of references; put others in place of bad ones."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from fourm_jax.contracts import Batch, RawBatch
from fourm_jax.data import collate
from fourm_jax.data import datasets as sources
from fourm_jax.data.datasets import Dataset
from fourm_jax.data.storage import left_out
from fourm_jax.data.storage.left_out import LeftOutRecord, RecordError
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import errors


class Reference(NamedTuple):
    """A record, without its content."""

    dataset: int  # position in the tuple of data sets
    record: int


@runtime_checkable
class Reader(Protocol):
    """Turns records into batches."""

    @property
    def datasets(self) -> tuple[Dataset, ...]: ...

    def combine(
        self, rows: Sequence[Mapping[str, Any]], datasets: Sequence[Dataset], draws: Sequence[float]
    ) -> Batch | RawBatch:
        """Batch of these records, of one data set each; RecordError names the row of a bad one."""


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Padded batches of the modalities `specs`, as `collate.collate` makes them."""

    datasets: tuple[Dataset, ...]
    specs: tuple[ModalitySpec, ...]

    def combine(
        self, rows: Sequence[Mapping[str, Any]], datasets: Sequence[Dataset], draws: Sequence[float]
    ) -> Batch:
        fields, mixtures = [d.fields for d in datasets], [d.index for d in datasets]
        return collate.collate(rows, fields, mixtures, self.specs, draws)


@dataclasses.dataclass(frozen=True)
class Fields:
    """Stacked raw fields, which every record must have in one shape; draws choose nothing.

    Attributes:
      prepare: {field: what makes the array that is stacked of its value, or raises a ValueError};
        a field that is not listed is taken as it is.
    """

    datasets: tuple[Dataset, ...]
    fields: tuple[str, ...]
    prepare: Mapping[str, Callable[[Any], np.ndarray]] = dataclasses.field(default_factory=dict)

    def combine(
        self, rows: Sequence[Mapping[str, Any]], datasets: Sequence[Dataset], draws: Sequence[float]
    ) -> RawBatch:
        return {name: np.stack(self._values(rows, name)) for name in self.fields}

    def _values(self, rows: Sequence[Mapping[str, Any]], name: str) -> list[np.ndarray]:
        prepare, values = self.prepare.get(name, np.asarray), []
        for number, row in enumerate(rows):
            if name not in row:
                raise RecordError(
                    "missing_field", errors.unknown_value("record field", name, row), number
                )
            try:
                values.append(prepare(row[name]))
            except ValueError as error:
                raise RecordError("bad_value", f"{name!r}: {error}", number) from error
        shape, _ = collections.Counter(value.shape for value in values).most_common(1)[0]
        for number, value in enumerate(values):
            if value.shape != shape:
                message = f"{name!r} has shape {value.shape}, most records {shape}"
                raise RecordError("wrong_shape", message, number)
        return values


def read(
    reader: Reader,
    references: Sequence[Reference],
    draws: Sequence[float],
    *,
    following: Callable[[int], Iterator[Reference]] | None = None,
    max_left_out_records: int = 0,
) -> tuple[Batch | RawBatch, list[LeftOutRecord]]:
    """Return the batch of some references, and the records that were left out of it.

    Args:
      references: of the rows.
      draws: number in [0, 1) per row, which chooses its crop.
      following: row -> references that take its place if its record is bad, one after the other.
      max_left_out_records: so many at the most; not those of the run so far, because a batch is a
        function of its references alone.

    Raises:
      ValueError: more left-out records than that; names data set, file, record and reason of the
        last.
    """
    references = list(references)
    rows = _fetch(reader.datasets, references)
    bad: dict[tuple[str, int], LeftOutRecord] = {}
    others: dict[int, Iterator[Reference]] = {}
    tries: collections.Counter[int] = collections.Counter()
    while True:
        datasets = [reader.datasets[reference.dataset] for reference in references]
        try:
            return reader.combine(_readable(rows), datasets, draws), list(bad.values())
        except RecordError as error:
            assert error.row is not None
            row = error.row
            dataset, number = datasets[row], references[row].record
            message = describe(dataset, number, error)
            bad[dataset.name, number] = LeftOutRecord(
                place=dataset.name, record=number, reason=error.reason, message=message
            )
            tries[row] += 1
            # A record may come twice in a row, at the end of an epoch and the start of the next; if
            # a row meets more than that, its data set has no other records.
            too_many = len(bad) > max_left_out_records or tries[row] > 2 * max_left_out_records
            if following is None or too_many:
                more = (
                    f"{len(bad)} left-out records in one batch; the last: " if len(bad) > 1 else ""
                )
                raise ValueError(more + message) from error
        others.setdefault(row, following(row))
        references[row] = next(others[row])
        [rows[row]] = _fetch(reader.datasets, [references[row]])


def _readable(rows: Sequence[Mapping[str, Any] | ValueError]) -> list[Mapping[str, Any]]:
    """The records; RecordError for one that could not be read."""
    for row, record in enumerate(rows):
        if isinstance(record, ValueError):
            reason = left_out.reason_of(record, "unreadable_record")
            raise RecordError(reason, str(record), row) from record
    return [record for record in rows if not isinstance(record, ValueError)]


def _fetch(
    datasets: Sequence[Dataset], references: Sequence[Reference]
) -> list[Mapping[str, Any] | ValueError]:
    """Records, or why they cannot be read."""
    rows: list[Any] = [None] * len(references)
    for position, dataset in enumerate(datasets):
        own_rows = [
            row for row, reference in enumerate(references) if reference.dataset == position
        ]
        numbers = [references[row].record for row in own_rows]
        values = sources.read_records(dataset.source, numbers, dataset.name)
        for row, value in zip(own_rows, values, strict=True):
            rows[row] = value
    return rows


def describe(dataset: Dataset, record: int, error: Exception) -> str:
    """Data set, place and reason; many sources name the place of a damaged record themselves."""
    place, reason = sources.place_of(dataset, record), str(error)
    name = f"data set {dataset.name!r}, "
    if reason.startswith(place.removeprefix(name)):
        return name + reason
    return f"{place}: {reason}"
