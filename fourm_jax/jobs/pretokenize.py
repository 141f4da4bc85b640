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
from fourm_jax.data.crops import fields, policy, settings, stored
from fourm_jax.data.storage import left_out, records, shard_writer, shards
from fourm_jax.data.storage.left_out import LeftOutRecord, RecordError
from fourm_jax.jobs import encoders, shard_job
from fourm_jax.modalities.coordinates import Changes
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers import trained
from fourm_jax.utils import progress

READ_BLOCK = 256  # records that are read at once
NUM_PROBED = 16  # records, all over a source, of which at least one must be good
# Fields of a modality that decide what is written of it, beside its tokenizer.
FORM_FIELDS = ("grid", "max_tokens", "codes_per_position", "chunked", "text_form", "crop")
Numbered = tuple[int, records.Record]  # index in the source, or of a crop, and content
# What becomes of each of these records, or why it cannot be used.
Convert = Callable[[Sequence[Numbered]], Iterable[records.Record | ValueError]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job(shard_job.ShardJob):
    """What to read and where to write it.

    Attributes:
      source: of raw records.
      split: name of the split that is written.
      recipe: what the records of `source` are a function of (JSON values); decides, with the
        tokenizers' fingerprints and the content of the files that `source` reads, whether an
        unfinished folder can be continued.
      records_per_shard: 4,096 token records have about 25 MB.
      num_records: the first so many of `source`; 0 = all.
    """

    source: datasets.Source
    split: str
    recipe: Mapping[str, Any]
    records_per_shard: int = 4096
    num_records: int = 0


def tokenize(
    job: Job,
    specs: Sequence[ModalitySpec],
    tokenizers: epath.PathLike,
    *,
    seed: int | None = 0,
    crops: policy.CropPolicy | None = None,
) -> shard_job.Result:
    """Write one split of token shards; fields are named like the modalities.

    Grids and vectors become ids (uint16 or int32), sequences ids with [EOS] (and "<name>.chunk"
    where chunked); pixels and embeddings are copied. A record without a raw field lacks the
    modality. Vectors of whole pictures are those of all their crops, which is announced. Tokenizers
    use all devices of this process; how many there are changes nothing.

    Args:
      tokenizers: folder with one folder per tokenizer, named as in `ModalitySpec.tokenizer`.
      seed: of the draws that serializers make (order of metadata, number of colours); None: no
        draws, every text in its one fixed form.
      crops: what is cropped from every record; None: records as they are.

    Raises:
      ValueError: no modality, a tokenizer that is missing or does not fit its modality, a folder
        that holds another data set, or no record that can be used.
    """
    shard_job.check(job, job.records_per_shard)
    if not specs:
        raise ValueError("no modality to write: config.modalities.names is empty")
    for name in [spec.name for spec in specs if crops and fields.is_same_in_every_crop(spec)]:
        progress.announce(
            f"{name!r} is of whole pictures: their crops share it, mirrored ones too (published: a "
            "vector of each crop). With crops.num_crops=0 nothing is cropped"
        )
    steps, schema = [], {}
    for spec in specs:
        encoder, schema[spec.name] = encoders.make_encoder(spec, tokenizers, seed)
        steps.append(encoder)
    targets = [{spec.name: spec.name for spec in specs}]
    names = sorted({spec.source for spec in specs})

    def encode(numbered: Sequence[Numbered]) -> Iterator[records.Record | ValueError]:
        numbers, rows = [number for number, _ in numbered], [row for _, row in numbered]
        for parts in zip(*(step(rows, numbers) for step in steps), strict=True):
            yield left_out.attempt(_join, parts)

    def make_crops(index: int, row: records.Record) -> list[Numbered]:
        if crops is None:
            return [(index, row)]
        every = crops.crop_all(row, index, names, specs)
        return list(enumerate(every, index * crops.num_crops))

    def finish(numbered: Sequence[Numbered], encoded: Sequence[Any]) -> records.Record:
        """The record of some crops, as training will read it."""
        for (_, crop), record in zip(numbered, encoded, strict=True):
            if isinstance(record, ValueError):
                raise record
            collate.collate([record], targets, [0], specs)  # checks what training will check
            if crops:
                record[settings.SETTINGS] = crop[settings.SETTINGS]
        return stored.stack(encoded, specs) if crops else encoded[0]

    def convert(numbered: Sequence[Numbered]) -> Iterator[records.Record | ValueError]:
        cropped = [left_out.attempt(make_crops, *one) for one in numbered]
        good = (group for group in cropped if not isinstance(group, ValueError))
        encoded = encode(list(itertools.chain.from_iterable(good)))
        for group in cropped:
            if isinstance(group, ValueError):
                yield group
            else:
                yield left_out.attempt(finish, group, list(itertools.islice(encoded, len(group))))

    forms = {spec.name: {field: getattr(spec, field) for field in FORM_FIELDS} for spec in specs}
    recipe = {"modalities": schema, "seed": seed, shard_writer.FORMS: forms}
    if crops:
        recipe["crops"] = dataclasses.asdict(crops)
    block = trained.HOST_BATCH * jax.local_device_count() // (crops.num_crops if crops else 1)
    return _write(job, convert, max(block, 1), recipe, schema, specs)


def export(job: Job, fields: Sequence[str]) -> shard_job.Result:
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
    specs: Sequence[ModalitySpec] = (),
) -> shard_job.Result:
    """Write a split; `convert` gets `block` records at once, whose texts are in their ranges."""
    size = len(job.source)
    if not size:
        raise ValueError(f"the source has no record of {job.split!r}")
    if not 0 <= job.num_records <= size:
        raise ValueError(
            f"num_records is {job.num_records}: the source has {size} records of {job.split!r}, "
            f"allowed: 1..{size}, or 0 for all"
        )
    total = job.num_records or size
    recipe = {**job.recipe, **recipe, "num_records": total}
    if isinstance(job.source, datasets.Identified):
        recipe[shard_writer.CONTENT] = job.source.content
    if not shards.manifest_path(job.output, job.split).exists():
        _probe(job, total, convert, specs)
    result = shard_job.write_blocks(
        job,
        job.split,
        total=total,
        records_per_shard=job.records_per_shard,
        block=block,
        convert=lambda numbers: _converted(job, numbers, convert, specs),
        recipe=recipe,
        schema=schema,
        unread=getattr(job.source, "left_out", ()),
    )
    shard_job.check_not_empty(job, job.split, result)
    return result


def _probe(job: Job, total: int, convert: Convert, specs: Sequence[ModalitySpec]) -> None:
    """Refuse at once what would refuse every record, such as a tokenizer of other pictures."""
    if total <= NUM_PROBED:
        return
    for index in np.linspace(0, total - 1, NUM_PROBED).astype(int).tolist():
        *_, one = _converted(job, [index], convert, specs)
        if not isinstance(one, LeftOutRecord):
            return
    raise ValueError(
        f"none of {NUM_PROBED} records, tried all over the {total} of {job.split!r}, can be used; "
        f"the last: {one}"
    )


def _converted(
    job: Job, indices: Sequence[int], convert: Convert, specs: Sequence[ModalitySpec]
) -> Iterator[shard_job.Entry]:
    """What becomes of each of these records; entries about what it lost come before it."""
    rows, counts = list(_read(job.source, indices)), []
    for number, row in enumerate(rows):
        count = row if isinstance(row, ValueError) else left_out.attempt(_count, row, specs)
        counts.append(count)
        if isinstance(count, ValueError):
            rows[number] = count
    numbered = [
        (index, dict(row))
        for index, row in zip(indices, rows, strict=True)
        if not isinstance(row, ValueError)
    ]
    converted = iter(convert(numbered))
    for index, row, count in zip(indices, rows, counts, strict=True):
        made = row if isinstance(row, ValueError) else next(converted)
        if not isinstance(made, ValueError):
            made = left_out.attempt(_storable, made)
        if isinstance(made, ValueError):
            yield _left_out(job.source, index, made)
            continue
        assert not isinstance(count, ValueError)  # its row would be one
        for name, changes in count.items():
            place = datasets.place(job.source, index)
            yield from left_out.about_changes(place, index, name, changes)
        yield dict(made)


def _count(row: records.Record, specs: Sequence[ModalitySpec]) -> dict[str, Changes]:
    """What is clipped or left out within each text; raises where it is far out of its range."""
    counts = {}
    for spec in specs:
        if spec.kind == "sequence" and spec.source in row:
            size = fields.picture_size(row, specs) if spec.crop == "poses" else None
            try:
                counts[spec.name] = fields.count_changes(spec, row[spec.source], size)
            except ValueError as error:
                raise RecordError("bad_value", f"modality {spec.name!r}: {error}") from error
    return {name: count for name, count in counts.items() if any(count)}


def _read(
    source: datasets.Source, indices: Sequence[int]
) -> Sequence[Mapping[str, Any] | ValueError]:
    return [
        RecordError(left_out.reason_of(row, "unreadable_record"), str(row))
        if isinstance(row, ValueError)
        else row
        for row in datasets.read_records(source, indices)
    ]


def _join(parts: Sequence[records.Record | ValueError]) -> records.Record:
    """The fields of all modalities; raises what is wrong with one of them."""
    joined: records.Record = {}
    for part in parts:
        if isinstance(part, ValueError):
            raise part
        joined |= part
    return joined


def _storable(record: records.Record) -> records.Record:
    if record.keys() <= {settings.SETTINGS}:
        message = "it has none of the modalities: nothing could be learned from it"
        raise RecordError("empty_record", message)
    records.encode(record)
    return record


def _left_out(source: datasets.Source, index: int, error: ValueError) -> LeftOutRecord:
    """Many errors begin with the place of the record, which is told anyway."""
    place, message = datasets.place(source, index), str(error)
    for prefix in (place, f"record {index}"):
        message = message.removeprefix(prefix).lstrip(" ,:")
    reason = left_out.reason_of(error, "bad_value")
    return LeftOutRecord(place=place, record=index, reason=reason, message=message)
