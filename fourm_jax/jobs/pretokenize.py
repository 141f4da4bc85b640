"""Raw records -> token shards: every tokenizer of a data set, run once, for training to read.

Shard k holds the records from k · records_per_shard on, whoever writes it and in whatever order, so
any number of processes, killed and started again, ends with the same files
(docs/published.md#pretokenization). Several crops of a record are tokenized as if each were a
record, and stored together (`data.crops`). A record that cannot be read, tokenized or stored is
listed (`data.storage`), and the rest goes on.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from fourm_jax.data import collate, datasets
from fourm_jax.data.crops import policy
from fourm_jax.data.crops import stored as crops_lib
from fourm_jax.data.storage import problems, records, shard_writer, shards
from fourm_jax.jobs import encoders
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers import base
from fourm_jax.utils import progress

READ_BLOCK = 256  # records that are read at once
TRIED = 16  # records, all over a source, of which at least one must be good
Numbered = tuple[int, records.Record]  # index in the source, or of a view, and content
# What becomes of each of these records, or why it cannot be used.
Convert = Callable[[Sequence[Numbered]], Iterable[records.Record | ValueError]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to read and where to write it.

    Attributes:
      source: of raw records.
      output: folder of the shards.
      split: name of the split that is written.
      recipe: what the records of `source` are a function of (JSON values); decides, with the
        tokenizers' fingerprints, whether an unfinished folder can be continued.
      records_per_shard: 4,096 token records have about 25 MB.
      num_records: the first so many of `source`; 0 = all.
      process_index, process_count: this process writes every process_count-th shard.
      show_progress: draw a bar.
    """

    source: datasets.Source
    output: epath.PathLike
    split: str
    recipe: Mapping[str, Any]
    records_per_shard: int = 4096
    num_records: int = 0
    process_index: int = 0
    process_count: int = 1
    show_progress: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What lies in the output folder of a split.

    Attributes:
      num_records: of the finished split; None while other processes are still writing.
      problems: records that were left out, of all processes so far.
    """

    num_records: int | None
    problems: Sequence[problems.Problem]


def tokenize(
    job: Job,
    specs: Sequence[ModalitySpec],
    tokenizers: epath.PathLike,
    *,
    seed: int | None = 0,
    crops: policy.Crops | None = None,
) -> Result:
    """Write one split of token shards; fields are named like the modalities.

    Grids and vectors become ids (uint16 or int32), sequences ids with [EOS] (and "<name>.chunk"
    where chunked); pixels and embeddings are copied. A record without a raw field lacks the
    modality. Tokenizers use all devices of this process; how many there are changes nothing.

    Args:
      tokenizers: folder with one folder per tokenizer, named as in `ModalitySpec.tokenizer`.
      seed: of the draws that serialisers make (order of metadata, number of colours); None: no
        draws, every text in its one fixed form.
      crops: what is cropped from every record; None: records as they are.

    Raises:
      ValueError: no modality, a tokenizer that is missing or does not fit its modality, a folder
        that holds another data set, or no record that can be used.
    """
    if not specs:
        raise ValueError("no modality to write: config.modalities.names is empty")
    steps, schema = [], {}
    for spec in specs:
        encoder, schema[spec.name] = encoders.make_encoder(spec, tokenizers, seed)
        steps.append(encoder)
    fields = [{spec.name: spec.name for spec in specs}]
    names = sorted({spec.source for spec in specs})

    def encode(numbered: Sequence[Numbered]) -> Iterator[records.Record | ValueError]:
        numbers, rows = [number for number, _ in numbered], [row for _, row in numbered]
        for parts in zip(*(step(rows, numbers) for step in steps), strict=True):
            yield problems.attempt(_join, parts)

    def make_views(index: int, row: records.Record) -> list[Numbered]:
        if crops is None:
            return [(index, row)]
        return list(enumerate(crops.views(row, index, names), index * crops.num_crops))

    def finish(numbered: Sequence[Numbered], encoded: Sequence[Any]) -> records.Record:
        """The record of some views, as training will read it."""
        for (_, view), record in zip(numbered, encoded, strict=True):
            if isinstance(record, ValueError):
                raise record
            collate.collate([record], fields, [0], specs)  # checks what training will check
            if crops:
                record[crops_lib.SETTINGS] = view[crops_lib.SETTINGS]
        return crops_lib.stack(encoded, specs) if crops else encoded[0]

    def convert(numbered: Sequence[Numbered]) -> Iterator[records.Record | ValueError]:
        cut = [problems.attempt(make_views, *one) for one in numbered]
        good = (group for group in cut if not isinstance(group, ValueError))
        encoded = encode(list(itertools.chain.from_iterable(good)))
        for group in cut:
            if isinstance(group, ValueError):
                yield group
            else:
                yield problems.attempt(finish, group, list(itertools.islice(encoded, len(group))))

    recipe = {"modalities": schema, "seed": seed}
    if crops:
        recipe["crops"] = dataclasses.asdict(crops)
    block = base.HOST_BATCH * jax.local_device_count() // (crops.num_crops if crops else 1)
    return _write(job, convert, max(block, 1), recipe, schema)


def export(job: Job, fields: Sequence[str]) -> Result:
    """Write raw fields of a source into shards, so that a costly source is read only once."""

    def select(numbered: Sequence[Numbered]) -> Iterator[records.Record]:
        for _, row in numbered:
            yield {name: row[name] for name in fields if name in row}

    return _write(job, select, READ_BLOCK, {"fields": list(fields)}, {})


def _write(
    job: Job,
    convert: Convert,
    block: int,
    recipe: Mapping[str, Any],
    schema: Mapping[str, Mapping],
) -> Result:
    """Write a split; `convert` gets `block` records at once."""
    if not 0 <= job.num_records <= len(job.source) or not len(job.source):
        raise ValueError(
            f"{job.num_records} records asked of {job.split!r}, allowed: 0..{len(job.source)}"
        )
    if job.records_per_shard < 1:
        raise ValueError(f"records_per_shard {job.records_per_shard}, must be at least 1")
    total = job.num_records or len(job.source)
    num_shards = -(-total // job.records_per_shard)
    if not shards.manifest_path(job.output, job.split).exists():
        _try_some(job, total, convert)
    bar = progress.Bar(total, label=f"{job.split} records", enabled=job.show_progress)

    def make_records(shard: int) -> Iterator[records.Record]:
        refused = []
        stop = min((shard + 1) * job.records_per_shard, total)
        for start in range(shard * job.records_per_shard, stop, block):
            for one in _converted(job, range(start, min(start + block, stop)), convert):
                if isinstance(one, problems.Problem):
                    refused.append(one)
                else:
                    yield one
            bar.update(min(start + block, stop))
        problems.write(job.output, job.split, shard, num_shards, refused)

    size = {"num_records": total, "records_per_shard": job.records_per_shard}
    try:
        shard_writer.write_split(
            job.output,
            job.split,
            {**job.recipe, **recipe, **size},
            num_shards,
            make_records,
            extra_fields=schema,
            process_index=job.process_index,
            process_count=job.process_count,
            allow_empty=True,
        )
        problems.finish(job.output, job.split, num_shards)
    finally:
        bar.close()
    return _result(job, total)


def _result(job: Job, total: int) -> Result:
    listed = problems.read(job.output, job.split)
    if not shards.manifest_path(job.output, job.split).exists():
        return Result(num_records=None, problems=listed)
    written = shards.read_manifest(job.output, job.split).num_records
    if not written:
        raise ValueError(
            f"none of the {total} records of {job.split!r} can be used, listed in "
            f"{epath.Path(job.output) / problems.FOLDER}; the first: {listed[0]}"
        )
    return Result(num_records=written, problems=listed)


def _try_some(job: Job, total: int, convert: Convert) -> None:
    """Refuse at once what would refuse every record, such as a tokenizer of other pictures."""
    if total <= TRIED:
        return
    for index in np.linspace(0, total - 1, TRIED).astype(int).tolist():
        (one,) = _converted(job, [index], convert)
        if not isinstance(one, problems.Problem):
            return
    raise ValueError(
        f"none of {TRIED} records, tried all over the {total} of {job.split!r}, can be used; "
        f"the last: {one}"
    )


def _converted(
    job: Job, indices: Sequence[int], convert: Convert
) -> Iterator[records.Record | problems.Problem]:
    """What becomes of each of these records."""
    rows = _read(job.source, indices)
    numbered = [
        (index, row)
        for index, row in zip(indices, rows, strict=True)
        if not isinstance(row, ValueError)
    ]
    converted = iter(convert(numbered))
    for index, row in zip(indices, rows, strict=True):
        one = row if isinstance(row, ValueError) else next(converted)
        if not isinstance(one, ValueError):
            one = problems.attempt(_storable, one)
        if isinstance(one, ValueError):
            one = _problem(job.source, index, one)
        yield one


def _read(
    source: datasets.Source, indices: Sequence[int]
) -> Sequence[Mapping[str, Any] | ValueError]:
    if hasattr(source, "records"):
        try:
            return datasets.read_records(source, indices)
        except ValueError:
            pass  # which of them it is shows when they are read one by one
    rows = []
    for index in indices:
        try:
            rows.append(source[index])
        except ValueError as error:
            rows.append(error)
    return rows


def _join(parts: Sequence[records.Record | ValueError]) -> records.Record:
    """The fields of all modalities; raises what is wrong with one of them."""
    for part in parts:
        if isinstance(part, ValueError):
            raise part
    return {name: value for part in parts for name, value in part.items()}


def _storable(record: records.Record) -> records.Record:
    if record.keys() <= {crops_lib.SETTINGS}:
        raise ValueError("it has none of the modalities: nothing could be learned from it")
    records.encode(record)
    return record


def _problem(source: datasets.Source, index: int, error: ValueError) -> problems.Problem:
    """Many errors begin with the place of the record, which is told anyway."""
    place, reason = datasets.place(source, index), str(error)
    for prefix in (place, f"record {index}"):
        reason = reason.removeprefix(prefix).lstrip(" ,:")
    return problems.Problem(file=place, reason=reason, record=index)
