"""Raw records -> token shards: every tokenizer of a data set, run once, for training to read.

Shard k holds the records from k · records_per_shard on, whoever writes it and in whatever order, so
any number of processes, killed and started again, ends with the same files (spec page 09).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from fourm_jax.data import records, shard_writer, sources
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers import base
from fourm_jax.train import encoders
from fourm_jax.utils import progress


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
    job: Job, specs: Sequence[ModalitySpec], tokenizers: epath.PathLike, *, seed: int | None = 0
) -> None:
    """Write one split of token shards; fields are named like the modalities.

    Grids and vectors become ids (uint16 or int32), sequences ids with [EOS] (and "<name>.chunk"
    where chunked); pixels and embeddings are copied. A record without a raw field lacks the
    modality.

    Args:
      tokenizers: folder with one folder per tokenizer, named as in `ModalitySpec.tokenizer`.
      seed: of the draws that serialisers make (order of metadata, number of colours); None: no
        draws, every text in its one fixed form.

    Raises:
      ValueError: a tokenizer that is missing or does not fit its modality, a raw value that it
        refuses (names the record), or a folder that holds another data set.
    """
    steps, schema = [], {}
    for spec in specs:
        encoder, schema[spec.name] = encoders.make_encoder(spec, tokenizers, seed)
        steps.append(encoder)

    def encode(rows: Sequence[records.Record], indices: Sequence[int]) -> list[records.Record]:
        parts = [step(rows, indices) for step in steps]
        return [{k: v for part in row for k, v in part.items()} for row in zip(*parts, strict=True)]

    _write(job, encode, {"modalities": schema, "seed": seed}, schema)


def export(job: Job, fields: Sequence[str]) -> None:
    """Write raw fields of a source into shards, so that a costly source is read only once."""

    def select(rows: Sequence[records.Record], indices: Sequence[int]) -> list[records.Record]:
        return [{name: row[name] for name in fields if name in row} for row in rows]

    _write(job, select, {"fields": list(fields)}, {})


def _write(
    job: Job,
    convert: Callable[[Sequence[records.Record], Sequence[int]], list[records.Record]],
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
        stop = min((shard + 1) * job.records_per_shard, total)
        for start in range(shard * job.records_per_shard, stop, base.HOST_BATCH):
            indices = range(start, min(start + base.HOST_BATCH, stop))
            yield from convert(sources.read_records(job.source, indices), indices)
            bar.update(indices.stop)

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
