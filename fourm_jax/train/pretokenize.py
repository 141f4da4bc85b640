"""Raw records -> token shards: every tokenizer of a data set, run once, for training to read.

Shard k holds the records from k · records_per_shard on, whoever writes it and in whatever order, so
any number of processes, killed and started again, ends with the same files (spec page 09). Several
crops of a record are tokenized as if each were a record, and stored together (`data.crops`).
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
from etils import epath

from fourm_jax.data import crops as crops_lib
from fourm_jax.data import records, shard_writer, sources, views
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers import base
from fourm_jax.train import encoders
from fourm_jax.utils import progress

READ_BLOCK = 256  # records that are read at once
Numbered = tuple[int, records.Record]  # index in the source, or of a view, and content


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

    source: sources.Source
    output: epath.PathLike
    split: str
    recipe: Mapping[str, Any]
    records_per_shard: int = 4096
    num_records: int = 0
    process_index: int = 0
    process_count: int = 1
    show_progress: bool = False


def tokenize(
    job: Job,
    specs: Sequence[ModalitySpec],
    tokenizers: epath.PathLike,
    *,
    seed: int | None = 0,
    crops: views.Crops | None = None,
) -> None:
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
      ValueError: a tokenizer that is missing or does not fit its modality, a raw value that it
        refuses (names the records), or a folder that holds another data set.
    """
    steps, schema = [], {}
    for spec in specs:
        encoder, schema[spec.name] = encoders.make_encoder(spec, tokenizers, seed)
        steps.append(encoder)
    if crops:
        steps.append(encoders.copy(crops_lib.SETTINGS, crops_lib.SETTINGS))
    names = sorted({spec.source for spec in specs})
    block = base.HOST_BATCH * jax.local_device_count()

    def encode(numbered: Iterable[Numbered]) -> Iterator[records.Record]:
        for group in _grouped(numbered, block):
            numbers, rows = zip(*group, strict=True)
            try:
                parts = [step(rows, numbers) for step in steps]
            except ValueError as error:
                per_record = crops.num_crops if crops else 1
                span = f"records {numbers[0] // per_record}..{numbers[-1] // per_record}"
                raise ValueError(f"{span}, {error}") from error
            for row in zip(*parts, strict=True):
                yield {name: value for part in row for name, value in part.items()}

    def encode_crops(numbered: Iterable[Numbered]) -> Iterator[records.Record]:
        cropped = (
            (index * crops.num_crops + number, view)
            for index, row in numbered
            for number, view in enumerate(crops.views(row, index, names))
        )
        for group in _grouped(encode(cropped), crops.num_crops):
            yield crops_lib.stack(group, specs)

    recipe = {"modalities": schema, "seed": seed}
    if crops:
        recipe["crops"] = dataclasses.asdict(crops)
    _write(job, encode_crops if crops else encode, recipe, schema)


def export(job: Job, fields: Sequence[str]) -> None:
    """Write raw fields of a source into shards, so that a costly source is read only once."""

    def select(numbered: Iterable[Numbered]) -> Iterator[records.Record]:
        for _, row in numbered:
            yield {name: row[name] for name in fields if name in row}

    _write(job, select, {"fields": list(fields)}, {})


def _write(
    job: Job,
    convert: Callable[[Iterable[Numbered]], Iterator[records.Record]],
    recipe: Mapping[str, Any],
    schema: Mapping[str, Mapping],
) -> None:
    if not 0 <= job.num_records <= len(job.source):
        raise ValueError(
            f"{job.num_records} records asked of {job.split!r}, allowed: 0..{len(job.source)}"
        )
    total = job.num_records or len(job.source)
    bar = progress.Bar(total, label=f"{job.split} records", enabled=job.show_progress)

    def make_records(shard: int) -> Iterator[records.Record]:
        indices = range(
            shard * job.records_per_shard, min((shard + 1) * job.records_per_shard, total)
        )
        for index, record in zip(indices, convert(_read(job.source, indices)), strict=True):
            yield record
            bar.update(index + 1)

    size = {"num_records": total, "records_per_shard": job.records_per_shard}
    try:
        shard_writer.write_split(
            job.output,
            job.split,
            {**job.recipe, **recipe, **size},
            -(-total // job.records_per_shard),
            make_records,
            extra_fields=schema,
            process_index=job.process_index,
            process_count=job.process_count,
        )
    finally:
        bar.close()


def _read(source: sources.Source, indices: Sequence[int]) -> Iterator[Numbered]:
    for block in _grouped(indices, READ_BLOCK):
        yield from zip(block, sources.read_records(source, block), strict=True)


def _grouped(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` values; the last one may be shorter."""
    iterator = iter(values)
    while group := list(itertools.islice(iterator, size)):
        yield group
