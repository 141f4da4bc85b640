"""From data sets to batches: shuffle, mix, shard and read, with batch n a function of (seed, n).

Grain shuffles, repeats and mixes *references* (data set, record), which costs microseconds; one
map then reads and collates the rows that this process needs. So the rows of batch n depend neither
on how many processes or threads read them, nor on where a run was interrupted. The crop of a record
that holds several is drawn from (seed, n) too, and a bad record, where a run may leave some out,
gives its place to the next one of its data set in the stream of references.
"""

import bisect
import contextlib
import functools
import itertools
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Bool

from fourm_jax.contracts import Batch, RawBatch
from fourm_jax.data import datasets as sources
from fourm_jax.data import packing, reading
from fourm_jax.data.datasets import Dataset
from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.data.packing import PackedBatch
from fourm_jax.data.reading import Reference
from fourm_jax.data.storage.left_out import LeftOutRecord
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import progress

NUM_BATCHES = 2**40  # of an endless training run
_CROPS = zlib.crc32(b"crops")


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
    left_out: LeftOutLog | None = None,
) -> Generator[Batch, None, None]:
    """Yield the token batches start, start + 1, … of a run, for ever (see `collate.collate`).

    Batch n is a function of (seed, n): equal for any number of threads, workers and restarts.

    Args:
      batch_size: of the global batch; process p of P gets its p-th block of batch_size / P rows.
      start: first batch; to resume, the number of batches already seen.
      num_threads: that read ahead; 0 reads ahead nothing. One thread reads local token shards
        fastest (Python's lock); more hide the latency of remote files and of picture decoding.
      num_workers: processes that read, each with `num_threads`; 0 reads in this one. Grain's
        workers want absl flags to be parsed, as `absl.app.run` does.
      left_out: allows its `limit` of left-out records, which others replace; None allows none.

    Raises:
      ValueError: see `sources.check`; a batch size that the processes cannot share; when a batch
        is read, a damaged record or a value that breaks the contract (names file, record and
        modality), or more of them than `left_out` allows.
    """
    sources.check(datasets, specs)
    return make_batches_of(
        reading.Tokens(tuple(datasets), tuple(specs)),
        batch_size=batch_size,
        seed=seed,
        start=start,
        process_index=process_index,
        process_count=process_count,
        num_threads=num_threads,
        num_workers=num_workers,
        left_out=left_out,
    )


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
    left_out: LeftOutLog | None = None,
    prepare: Mapping[str, Callable[[Any], np.ndarray]] | None = None,
) -> Generator[RawBatch, None, None]:
    """Yield batches {field: array [b, …]} of raw record fields, to train tokenizers.

    Arguments and errors as for `make_batches`; every record must have every field, in one shape.

    Args:
      prepare: what is done to the value of a field, see `reading.Fields`.
    """
    return make_batches_of(
        reading.Fields(tuple(datasets), tuple(fields), prepare or {}),
        batch_size=batch_size,
        seed=seed,
        start=start,
        process_index=process_index,
        process_count=process_count,
        num_threads=num_threads,
        num_workers=num_workers,
        left_out=left_out,
    )


def make_batches_of(
    reader: reading.Reader,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 1,
    num_workers: int = 0,
    left_out: LeftOutLog | None = None,
) -> Generator[Any, None, None]:
    """Yield the batches of any reader; arguments and errors as for `make_batches`."""
    left_out = left_out or LeftOutLog(0)
    batches = make_dataset(
        reader,
        batch_size=batch_size,
        seed=seed,
        start=start,
        process_index=process_index,
        process_count=process_count,
        max_left_out_records=left_out.limit,
    )
    return _iterate(batches, start, num_threads, num_workers, left_out)


def make_dataset(
    reader: reading.Reader,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    max_left_out_records: int = 0,
) -> grain.MapDataset:
    """Return (batch, its left-out records) number start, start + 1, …, with random access."""
    datasets = reader.datasets
    if not datasets:
        raise ValueError("no data set: config.data is empty")
    for dataset in datasets:
        if dataset.weight <= 0:
            raise ValueError(f"data set {dataset.name!r}: weight {dataset.weight}, must be > 0")
    rows = _rows_of_each(batch_size, process_count)
    parts = [
        grain.MapDataset.range(len(dataset.source))
        .shuffle(seed=zlib.crc32(f"{seed}/{dataset.name}".encode()))
        .repeat()
        .map(functools.partial(Reference, position))
        for position, dataset in enumerate(datasets)
    ]
    read = _Read(
        references=grain.MapDataset.mix(parts, [dataset.weight for dataset in datasets]),
        reader=reader,
        seed=seed,
        batch_size=batch_size,
        rows=range(process_index * rows, (process_index + 1) * rows),
        max_left_out_records=max_left_out_records,
    )
    return grain.MapDataset.range(start, NUM_BATCHES).map(read)


def one_pass(
    datasets: Sequence[Dataset],
    specs: Sequence[ModalitySpec],
    *,
    batch_size: int,
    num_records: int | Sequence[int] = 0,
    process_index: int = 0,
    process_count: int = 1,
    left_out: LeftOutLog | None = None,
) -> Iterator[tuple[Batch, Bool[np.ndarray, "b"]]]:
    """Yield every record once, in order: (batch, valid), for evaluation.

    All processes yield the same number of batches of batch_size / process_count rows; the rows
    that fill up the last one repeat a record and have `valid` False, and so have those that hold
    another record of their data set in place of a bad one.

    Args:
      num_records: the first so many of each data set, or a number for each; 0 alone = all.
      left_out: counts the bad records of this process; default: none may be left out.

    Raises:
      ValueError: see `sources.check`; a batch size that the processes cannot share; when a batch
        is read, more damaged records, or ones that break the contract, than may be left out.
    """
    sources.check(datasets, specs)
    yield from one_pass_of(
        reading.Tokens(tuple(datasets), tuple(specs)),
        batch_size=batch_size,
        num_records=num_records,
        process_index=process_index,
        process_count=process_count,
        left_out=left_out,
    )


def one_pass_of(
    reader: reading.Reader,
    *,
    batch_size: int,
    num_records: int | Sequence[int] = 0,
    process_index: int = 0,
    process_count: int = 1,
    left_out: LeftOutLog | None = None,
) -> Iterator[tuple[Any, Bool[np.ndarray, "b"]]]:
    """Yield (batch, valid) of any reader; arguments and errors as for `one_pass`."""
    left_out = left_out or LeftOutLog(0)
    rows = _rows_of_each(batch_size, process_count)
    sizes = [len(dataset.source) for dataset in reader.datasets]
    if num_records:
        most = [num_records] * len(sizes) if isinstance(num_records, int) else num_records
        sizes = [min(pair) for pair in zip(most, sizes, strict=True)]
    total = sum(sizes)
    for first in range(0, total, batch_size):
        block = range(first + process_index * rows, first + (process_index + 1) * rows)
        numbers = [min(number, total - 1) for number in block]
        found = read_block(reader, numbers, sizes, max_left_out_records=left_out.limit)
        for one in left_out.add(first // batch_size, found.left_out):
            progress.announce(f"left-out record: {one.message}")
        yield found.batch, found.valid & (np.asarray(block) < total)


class Block(NamedTuple):
    """Some records of data sets that are read one after the other.

    Attributes:
      references: of the records that were asked for.
      valid: which of them the rows of the batch hold; the others are bad, and hold a neighbor.
      left_out: those, and bad ones among the neighbors.
    """

    batch: Any
    references: Sequence[Reference]
    valid: Bool[np.ndarray, "b"]
    left_out: Sequence[LeftOutRecord]


def read_block(
    reader: reading.Reader,
    numbers: Sequence[int],
    sizes: Sequence[int],
    *,
    max_left_out_records: int = 0,
) -> Block:
    """Read records by their numbers among those of all data sets, one after the other.

    Args:
      sizes: how many records of each data set count.

    Raises:
      ValueError: see `reading.read`.
    """
    datasets, ends = reader.datasets, list(itertools.accumulate(sizes))
    references = []
    for number in numbers:
        position = bisect.bisect_right(ends, number)
        references.append(Reference(position, number - ends[position] + sizes[position]))
    batch, bad = reading.read(
        reader,
        references,
        [0.0] * len(numbers),
        following=functools.partial(_behind, references, sizes),
        max_left_out_records=max_left_out_records,
    )
    lost = {(one.place, one.record) for one in bad}
    valid = [(datasets[one.dataset].name, one.record) not in lost for one in references]
    return Block(batch, references, np.asarray(valid), bad)


def _behind(references: Sequence[Reference], sizes: Sequence[int], row: int) -> Iterator[Reference]:
    """The records behind that of a row among those of its data set, from the start again."""
    position, number = references[row]
    for step in itertools.count(1):
        yield Reference(position, (number + step) % sizes[position])


def _rows_of_each(batch_size: int, process_count: int) -> int:
    """Rows of a batch that each process gets."""
    if batch_size <= 0 or batch_size % process_count:
        raise ValueError(
            f"batch size {batch_size}, allowed: positive multiples of {process_count} (processes)"
        )
    return batch_size // process_count


class _Read(NamedTuple):
    """Batch number -> the rows of this process, and the records left out on the way."""

    references: grain.MapDataset
    reader: reading.Reader
    seed: int
    batch_size: int
    rows: range  # of the global batch
    max_left_out_records: int

    def __call__(self, number: int) -> tuple[Batch | RawBatch, list[LeftOutRecord]]:
        first = number * self.batch_size + self.rows.start
        return reading.read(
            self.reader,
            [self.references[first + row] for row in range(len(self.rows))],
            self._draws(number),
            following=lambda row: self._following(first + row),
            max_left_out_records=self.max_left_out_records,
        )

    def _draws(self, number: int) -> list[float]:
        """What chooses the crop of each row: drawn for the whole global batch, whoever reads it."""
        rng = np.random.default_rng([self.seed, _CROPS, number])
        return rng.random(self.batch_size)[self.rows.start : self.rows.stop].tolist()

    def _following(self, position: int) -> Iterator[Reference]:
        """What the stream holds of the same data set behind a position."""
        dataset = self.references[position].dataset
        for later in itertools.count(position + 1):
            reference = self.references[later]
            if reference.dataset == dataset:
                yield reference


def _iterate(
    batches: grain.MapDataset,
    start: int,
    num_threads: int,
    num_workers: int,
    left_out: LeftOutLog,
) -> Generator[Any, None, None]:
    # The one switch to iteration comes last: whole batches are what threads and workers hand over,
    # so no record can be lost between them (grain issue 1129).
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    stream = batches.to_iter_dataset(options)
    if num_workers:
        stream = stream.map(_pack).mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
        )
        stream = stream.map(_unpack)
    with contextlib.closing(iter(stream)) as iterator:
        for number, (batch, bad) in enumerate(iterator, start):
            left_out.add(number, bad)
            yield batch


def _pack(numbered: tuple[Batch | RawBatch, list[LeftOutRecord]]) -> tuple[PackedBatch, list]:
    return packing.pack(numbered[0]), numbered[1]


def _unpack(numbered: tuple[PackedBatch, list]) -> tuple[Batch | RawBatch, list[LeftOutRecord]]:
    return packing.unpack(numbered[0]), numbered[1]
