"""A folder of pictures -> raw shards of aligned signals, each labeler run once on each picture."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fourm_jax.data import picture_folder
from fourm_jax.data.crops import fields
from fourm_jax.data.storage import left_out, records
from fourm_jax.data.storage.left_out import LeftOutRecord
from fourm_jax.jobs import shard_job
from fourm_jax.labelers import base
from fourm_jax.labelers.base import Labeler
from fourm_jax.modalities import registry

BATCH = 16  # pictures that a labeler sees at once
SPLITS = ("train", "test")
PIXELS = "rgb"  # the labeler that reads the picture
MAX_BYTES = records.MAX_BYTES // 2  # of the arrays of a record; the other half is for its texts

Row = dict[str, Any]  # a record on its way through the labelers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job(shard_job.ShardJob):
    """What to read, what to make of it, and where to write it (outside of `images`).

    Attributes:
      images: folder of the pictures; those in folders below it count too.
      labelers: in any order.
      test_fraction: share of the pictures, chosen by a hash of their names, that become "test".
      records_per_shard: 256 records of 256 x 384 pixels have about 100 MB.
    """

    images: pathlib.Path
    labelers: Sequence[Labeler]
    test_fraction: float = 0.05
    records_per_shard: int = 256


def make_labelers(
    names: Sequence[str], models: Mapping[str, str], image_size: int
) -> list[Labeler]:
    """Labelers by name.

    Args:
      names: of labelers without a model.
      models: {labeler: folder or Hub id of its model}.
      image_size: of the labeler "rgb".

    Raises:
      ValueError: see `base.make`.
    """
    plain = [base.make(n, {"image_size": image_size} if n == PIXELS else {}) for n in names]
    return plain + [base.make(name, {"model": model}) for name, model in models.items()]


def build(job: Job) -> dict[str, shard_job.Result]:
    """Write the "train" and "test" splits; one that no picture falls into is not there.

    Records have the outputs of the labelers and `file`, the picture's path below `job.images`.

    Raises:
      ValueError: no pictures, an output folder inside theirs, labelers that do not fit together, or
        a folder that holds another data set (other pictures, labelers or settings).
    """
    shard_job.check(job, job.records_per_shard)
    images, output = pathlib.Path(job.images).resolve(), pathlib.Path(job.output).resolve()
    if output.is_relative_to(images):
        raise ValueError(f"output {job.output} lies inside the pictures {job.images}")
    if not 0 <= job.test_fraction < 1:
        raise ValueError(f"test_fraction {job.test_fraction}, allowed: 0 <= x < 1")
    labelers = base.in_order(job.labelers)
    if not any(PIXELS in labeler.outputs for labeler in labelers):
        names = [labeler.name for labeler in labelers]
        raise ValueError(f"none of the labelers {names} makes {PIXELS!r}, which records need")
    files, others = picture_folder.find(images)
    recipe = {
        "pictures": picture_folder.fingerprint(images, files),
        "test_fraction": job.test_fraction,
        **{f"labeler {labeler.name}": dict(labeler.settings) for labeler in labelers},
    }
    results: dict[str, shard_job.Result] = {}
    for split, chosen in divide(files, job.test_fraction).items():
        if chosen:
            # Files that are no pictures stand in the first split's list.
            listed = () if results else others
            results[split] = _write_split(job, split, chosen, labelers, recipe, listed)
    return results


def divide(files: Sequence[str], test_fraction: float) -> dict[str, list[str]]:
    """Files of each split: a file's split depends on its name and the fraction only."""
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for file in files:
        found[SPLITS[rank(file) < test_fraction]].append(file)
    return found


def rank(file: str) -> float:
    """Number in 0..1 by which a file's split is decided, a hash of its name."""
    digest = hashlib.sha256(file.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _write_split(
    job: Job,
    split: str,
    files: Sequence[str],
    labelers: Sequence[Labeler],
    recipe: Mapping[str, Any],
    others: Sequence[LeftOutRecord],
) -> shard_job.Result:
    return shard_job.write_blocks(
        job,
        split,
        total=len(files),
        records_per_shard=job.records_per_shard,
        block=BATCH,
        convert=lambda numbers: _label(job.images, [files[n] for n in numbers], labelers),
        recipe=recipe,
        unread=others,
        schema={
            field: {"labeler": labeler.name, "axes": output.axes}
            for labeler in labelers
            for field, output in labeler.outputs.items()
        },
    )


def _label(
    images: pathlib.Path, files: Sequence[str], labelers: Sequence[Labeler]
) -> Iterator[shard_job.Entry]:
    """What becomes of each of these files."""
    rows: list[Row] = []
    refused: list[LeftOutRecord] = []
    for file in files:
        if file.encode("utf-8", "replace").decode() == file:
            rows.append({"file": file, "path": str(images / file)})
        else:
            refused.append(_left_out(file, "unreadable_name", "the name is not UTF-8"))
    for labeler in labelers:
        labelled = list(_apply(labeler, rows))
        rows = [row for row in labelled if not isinstance(row, LeftOutRecord)]
        refused += [row for row in labelled if isinstance(row, LeftOutRecord)]
    yield from refused
    for row in rows:
        del row["path"]
        size = sum(value.nbytes for value in row.values() if isinstance(value, np.ndarray))
        if size > MAX_BYTES:
            message = f"record of {size} bytes, allowed: {MAX_BYTES}"
            yield _left_out(row["file"], "too_large", message)
            continue
        for field in sorted(row.keys() & registry.sources().keys()):
            spec = registry.of_source(field)
            if spec.kind == "sequence":
                changes = fields.count_changes(spec, row[field], row[PIXELS].shape[:2])
                yield from left_out.about_changes(row["file"], None, field, changes)
        yield row


def _apply(labeler: Labeler, rows: Sequence[Row]) -> Iterable[Row | LeftOutRecord]:
    """The rows with the labeler's fields, or why the labeler refuses them.

    A batch in which one is refused is labelled again, one by one: the others go on. A labeler's
    library may fail on one picture with any error.
    """
    if not rows:
        return []
    labels = left_out.attempt(_checked_labels, labeler, rows)
    if not isinstance(labels, ValueError):
        return [{**row, **added} for row, added in zip(rows, labels, strict=True)]
    if len(rows) == 1:
        reason = left_out.reason_of(labels, f"refused_by_{labeler.name}")
        return [_left_out(rows[0]["file"], reason, str(labels))]
    return [entry for row in rows for entry in _apply(labeler, [row])]


def _checked_labels(labeler: Labeler, rows: Sequence[Row]) -> list[dict[str, Any]]:
    labels = list(labeler.label(rows))
    for row, added in zip(rows, labels, strict=True):
        base.check(labeler, row, added)
    return labels


def _left_out(file: str, reason: str, message: str) -> LeftOutRecord:
    return LeftOutRecord(place=file, reason=reason, message=message)
