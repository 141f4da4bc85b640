"""From data sets to batches: shuffle, mix, shard and read, with batch n a function of (seed, n).

Grain shuffles, repeats and mixes *references* (data set, record), which costs microseconds; one
map then reads and collates the rows that this process needs. So the rows of batch n depend neither
on how many processes or threads read them, nor on where a run was interrupted.
"""

import bisect
import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Bool

from fourm_jax.data import collate, sources
from fourm_jax.data.sources import Dataset
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec

Batch = dict[str, Any]
NUM_BATCHES = 2**40  # of an endless training run


class Reference(NamedTuple):
    """A record, without its content."""

    dataset: int  # position in the tuple of data sets
    record: int


def make_batches(
    datasets: Sequence[Dataset],
    specs: Sequence[ModalitySpec],
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 1,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Yield the token batches start, start + 1, … of a run, for ever (see `collate.collate`).

    Batch n is a function of (seed, n): equal for any number of threads, workers and restarts.

    Args:
      batch_size: of the global batch; process p of P gets its p-th block of batch_size / P rows.
      start: first batch; to resume, the number of batches already seen.
      num_threads: that read ahead; 0 reads ahead nothing. One thread reads local token shards
        fastest (Python's lock); more hide the latency of remote files and of picture decoding.
      num_workers: processes that read, each with `num_threads`; 0 reads in this one. Grain's
        workers want absl flags to be parsed, as `absl.app.run` does.

    Raises:
      ValueError: see `sources.check`; a batch size that the processes cannot share; when a batch
        is read, a damaged record or a value that breaks the contract (names file, record and
        modality).
    """
    sources.check(datasets, specs)
    batches = make_dataset(
        datasets,
        _ReadTokens(tuple(datasets), tuple(specs)),
        batch_size=batch_size,
        seed=seed,
        start=start,
        process_index=process_index,
        process_count=process_count,
    )
    return _iterate(batches, num_threads, num_workers)


def make_raw_batches(
    datasets: Sequence[Dataset],
    fields: Sequence[str],
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 1,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Yield batches {field: array [b, …]} of raw record fields, to train tokenizers.

    Arguments and errors as for `make_batches`; every record must have every field, in one shape.
    """
    batches = make_dataset(
        datasets,
        _ReadFields(tuple(datasets), tuple(fields)),
        batch_size=batch_size,
        seed=seed,
        start=start,
        process_index=process_index,
        process_count=process_count,
    )
    return _iterate(batches, num_threads, num_workers)


def make_dataset(
    datasets: Sequence[Dataset],
    read: Callable[[Sequence[Reference]], Batch],
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """Return the batches of `make_batches` as a random-access grain data set.

    Args:
      read: references (data set, record) of this process's rows -> batch.
    """
    if not datasets:
        raise ValueError("no data set: config.data is empty")
    for dataset in datasets:
        if dataset.weight <= 0:
            raise ValueError(f"data set {dataset.name!r}: weight {dataset.weight}, must be > 0")
    if batch_size <= 0 or batch_size % process_count:
        raise ValueError(
            f"batch size {batch_size}, allowed: positive multiples of {process_count} (processes)"
        )
    parts = [
        grain.MapDataset.range(len(dataset.source))
        .shuffle(seed=zlib.crc32(f"{seed}/{dataset.name}".encode()))
        .repeat()
        .map(functools.partial(Reference, position))
        for position, dataset in enumerate(datasets)
    ]
    references = grain.MapDataset.mix(parts, [dataset.weight for dataset in datasets])
    rows = batch_size // process_count
    batch = _Rows(references, batch_size, process_index * rows, rows, read)
    return grain.MapDataset.range(start, NUM_BATCHES).map(batch)


def one_pass(
    datasets: Sequence[Dataset],
    specs: Sequence[ModalitySpec],
    *,
    batch_size: int,
    num_records: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[tuple[Batch, Bool[np.ndarray, "b"]]]:
    """Yield every record once, in order: (batch, valid), for evaluation.

    All processes yield the same number of batches of batch_size / process_count rows; the rows
    that fill up the last one repeat a record and have `valid` False.

    Args:
      num_records: the first so many of each data set; 0 = all.
    """
    sources.check(datasets, specs)
    read = _ReadTokens(tuple(datasets), tuple(specs))
    sizes = [min(num_records or len(d.source), len(d.source)) for d in datasets]
    ends = list(itertools.accumulate(sizes))
    rows = batch_size // process_count
    for first in range(0, ends[-1], batch_size):
        block = range(first + process_index * rows, first + (process_index + 1) * rows)
        references = []
        for number in (min(number, ends[-1] - 1) for number in block):
            position = bisect.bisect_right(ends, number)
            references.append(Reference(position, number - ends[position] + sizes[position]))
        yield read(references), np.asarray([number < ends[-1] for number in block])


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Batch number -> the rows of this process."""

    references: grain.MapDataset
    batch_size: int
    first: int
    count: int
    read: Callable[[Sequence[Reference]], Batch]

    def __call__(self, number: int) -> Batch:
        start = number * self.batch_size + self.first
        return self.read([self.references[start + row] for row in range(self.count)])


@dataclasses.dataclass(frozen=True)
class _ReadTokens:
    datasets: tuple[Dataset, ...]
    specs: tuple[ModalitySpec, ...]

    def __call__(self, references: Sequence[Reference]) -> Batch:
        datasets = [self.datasets[reference.dataset] for reference in references]
        rows = [d.source[r.record] for d, r in zip(datasets, references, strict=True)]
        try:
            return collate.collate(
                rows, [d.fields for d in datasets], [d.index for d in datasets], self.specs
            )
        except collate.RowError as error:
            dataset, record = datasets[error.row], references[error.row].record
            raise ValueError(f"{sources.where(dataset, record)}: {error}") from error


@dataclasses.dataclass(frozen=True)
class _ReadFields:
    datasets: tuple[Dataset, ...]
    fields: tuple[str, ...]

    def __call__(self, references: Sequence[Reference]) -> Batch:
        rows: list[Mapping] = [{}] * len(references)
        for position, dataset in enumerate(self.datasets):
            mine = [row for row, ref in enumerate(references) if ref.dataset == position]
            records = sources.read_records(dataset.source, [references[r].record for r in mine])
            for row, record in zip(mine, records, strict=True):
                rows[row] = {
                    name: self._field(record, name, references[row]) for name in self.fields
                }
        return {name: np.stack([row[name] for row in rows]) for name in self.fields}

    def _field(self, record: Mapping, name: str, reference: Reference) -> np.ndarray:
        if name not in record:
            place = sources.where(self.datasets[reference.dataset], reference.record)
            raise ValueError(f"{place}: {registry.unknown_value('record field', name, record)}")
        return record[name]


def _iterate(batches: grain.MapDataset, num_threads: int, num_workers: int) -> Iterator[Batch]:
    # The one switch to iteration comes last: whole batches are what threads and workers hand over,
    # so no record can be lost between them (grain issue 1129).
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    stream = batches.to_iter_dataset(options)
    if num_workers:
        stream = stream.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
        )
    return iter(stream)
