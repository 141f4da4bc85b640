"""What the long shard jobs share: who writes which shard, what was left out, the result.

What a shard holds depends on its number only, so any number of processes, killed and started again
at will, ends with the same files. A record that cannot be used is listed with the reason, never
raised: one bad record of a million ends no job.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from fourm_jax.data.storage import left_out, records, shard_writer, shards
from fourm_jax.data.storage.left_out import LeftOutRecord
from fourm_jax.utils import progress

# A record that is written, or one that is left out.
Entry = records.Record | LeftOutRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardJob:
    """Where shards are written, and by whom.

    Attributes:
      output: folder of the shards.
      process_index, process_count: this process writes every process_count-th shard.
      show_progress: draw a bar.
    """

    output: epath.PathLike
    process_index: int = 0
    process_count: int = 1
    show_progress: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What lies in the output folder of a split.

    Attributes:
      num_records: of the finished split; None while other processes are still writing.
      left_out: what all processes left out so far; `left_out.read` lists it.
    """

    num_records: int | None
    left_out: left_out.Summary


def check(job: ShardJob, records_per_shard: int) -> None:
    """Check what can be checked before any record is read.

    Raises:
      ValueError: a process that is none of the processes, or a shard of no records.
    """
    if not 0 <= job.process_index < job.process_count:
        raise ValueError(
            f"process {job.process_index} of {job.process_count}, allowed: 0..count - 1"
        )
    if records_per_shard < 1:
        raise ValueError(f"records_per_shard {records_per_shard}, must be at least 1")


def write_shards(
    job: ShardJob,
    split: str,
    *,
    recipe: Mapping[str, Any],
    num_shards: int,
    make_entries: Callable[[int], Iterable[Entry]],
    schema: Mapping[str, Mapping[str, Any]],
) -> Result:
    """Write the shards of this process that are not there yet, each with what it left out.

    Args:
      recipe: how the records are made (JSON values); decides whether the folder can be continued.
      make_entries: shard index -> its records and what it leaves out, in order.
      schema: {field: {key: value}} for the manifest, beside dtype and shape.

    Raises:
      ValueError: see `shard_writer.write_split`.
    """

    def make_records(shard: int) -> Iterator[records.Record]:
        listed: list[LeftOutRecord] = []
        for entry in make_entries(shard):
            if isinstance(entry, LeftOutRecord):
                listed.append(entry)
            else:
                yield entry
        left_out.write_part(job.output, split, shard, num_shards, listed)

    shard_writer.write_split(
        job.output,
        split,
        recipe,
        num_shards,
        make_records,
        extra_fields=schema,
        process_index=job.process_index,
        process_count=job.process_count,
    )
    left_out.finish(job.output, split, num_shards)
    return read_result(job.output, split)


def write_blocks(
    job: ShardJob,
    split: str,
    *,
    total: int,
    records_per_shard: int,
    block: int,
    convert: Callable[[range], Iterable[Entry]],
    recipe: Mapping[str, Any],
    schema: Mapping[str, Mapping[str, Any]],
    unread: Sequence[LeftOutRecord] = (),
) -> Result:
    """Write records 0..total - 1 of something, `records_per_shard` to a shard, behind a bar.

    Args:
      block: how many records `convert` gets at once; blocks never cross a shard.
      convert: numbers of records -> these records, or why they are left out.
      unread: what is no record at all; it is listed with the first shard.

    Raises:
      ValueError: a shard of no records, or see `write_shards`.
    """
    check(job, records_per_shard)
    bar = progress.Bar(total, label=split, unit="record", enabled=job.show_progress)

    def make_entries(shard: int) -> Iterator[Entry]:
        yield from unread if shard == 0 else ()
        stop = min((shard + 1) * records_per_shard, total)
        for start in range(shard * records_per_shard, stop, block):
            numbers = range(start, min(start + block, stop))
            yield from convert(numbers)
            bar.update(numbers.stop)

    with contextlib.closing(bar):
        return write_shards(
            job,
            split,
            recipe={**recipe, "records_per_shard": records_per_shard},
            num_shards=-(-total // records_per_shard),
            make_entries=make_entries,
            schema=schema,
        )


def check_not_empty(job: ShardJob, split: str, result: Result) -> None:
    """Check that a finished split has records.

    Raises:
      ValueError: it has none; says why and where that is listed.
    """
    if result.num_records == 0:
        counts = ", ".join(
            f"{count} x {reason}" for reason, count in result.left_out.reasons.items()
        )
        raise ValueError(
            f"none of {result.left_out.num_records} records of {split!r} can be used ({counts}), "
            f"listed in {left_out.list_path(job.output, split)}; the first: "
            f"{result.left_out.examples[0]}"
        )


def read_result(output: epath.PathLike, split: str) -> Result:
    """Result of a split so far; one that is not begun has no records."""
    written = None
    if shards.manifest_path(output, split).exists():
        written = shards.read_manifest(output, split).num_records
    return Result(num_records=written, left_out=left_out.summarize(output, split))
