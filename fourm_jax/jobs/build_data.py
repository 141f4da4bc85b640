"""A folder of pictures -> raw shards of aligned signals: every labeler run once over every picture.

What a shard holds depends on its number only, so any number of processes, killed and started again,
ends with the same files. A picture that cannot be used is listed with the reason, not raised.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fourm_jax.data import pictures
from fourm_jax.data.storage import problems, records, shard_writer, shards
from fourm_jax.data.storage.problems import Problem
from fourm_jax.labelers import base
from fourm_jax.labelers.base import Labeler
from fourm_jax.utils import progress

BATCH = 16  # pictures that a labeler sees at once
SPLITS = ("train", "test")
PIXELS = "rgb"  # the labeler that reads the picture
MAX_BYTES = records.MAX_BYTES // 2  # of the arrays of a record; the other half is for its texts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to read, what to make of it, and where to write it.

    Attributes:
      images: folder of the pictures; those in folders below it count too.
      output: folder of the shards, outside of `images`.
      labelers: in any order.
      test_fraction: share of the pictures, chosen by a hash of their names, that become "test".
      records_per_shard: 256 records of 256 x 384 pixels have about 100 MB.
      process_index, process_count: this process writes every process_count-th shard.
      show_progress: draw a bar.
    """

    images: pathlib.Path
    output: pathlib.Path
    labelers: Sequence[Labeler]
    test_fraction: float = 0.05
    records_per_shard: int = 256
    process_index: int = 0
    process_count: int = 1
    show_progress: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What lies in the output folder.

    Attributes:
      num_records: by split, of those that are finished (other processes may still be writing).
      problems: pictures that were left out, of all processes so far.
    """

    num_records: Mapping[str, int]
    problems: Sequence[Problem]


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


def build(job: Job) -> Result:
    """Write the "train" and "test" splits; a split that no picture falls into is not written.

    Records have the outputs of the labelers and `file`, the picture's path below `job.images`.

    Raises:
      ValueError: no pictures, an output folder inside theirs, labelers that do not fit together, or
        a folder that holds another data set (other pictures, labelers or settings).
    """
    images, output = pathlib.Path(job.images).resolve(), pathlib.Path(job.output).resolve()
    if output.is_relative_to(images):
        raise ValueError(f"output {job.output} lies inside the pictures {job.images}")
    if not 0 <= job.test_fraction < 1:
        raise ValueError(f"test_fraction {job.test_fraction}, allowed: 0 <= x < 1")
    labelers = base.in_order(job.labelers)
    if not any(PIXELS in labeler.outputs for labeler in labelers):
        names = [labeler.name for labeler in labelers]
        raise ValueError(f"none of the labelers {names} makes {PIXELS!r}, which records need")
    files = pictures.find(images)
    recipe = {
        "pictures": pictures.fingerprint(images, files),
        "test_fraction": job.test_fraction,
        **{f"labeler {labeler.name}": dict(labeler.settings) for labeler in labelers},
    }
    for split, chosen in divide(files, job.test_fraction).items():
        if chosen:
            _write_split(job, split, chosen, labelers, recipe)
    finished = [split for split in SPLITS if shards.manifest_path(output, split).exists()]
    counts = {split: shards.read_manifest(output, split).num_records for split in finished}
    listed = [problem for split in sorted(SPLITS) for problem in problems.read(output, split)]
    return Result(num_records=counts, problems=listed)


def divide(files: Sequence[str], test_fraction: float) -> dict[str, list[str]]:
    """Files of each split: a file's split depends on its name and the fraction only."""
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for file in files:
        digest = hashlib.sha256(file.encode("utf-8", "surrogateescape")).digest()
        is_test = int.from_bytes(digest[:8]) < test_fraction * 2**64
        found[SPLITS[is_test]].append(file)
    return found


def _write_split(
    job: Job, split: str, files: Sequence[str], labelers: Sequence[Labeler], recipe: Mapping
) -> None:
    size, num_shards = job.records_per_shard, -(-len(files) // job.records_per_shard)
    bar = progress.Bar(len(files), label=f"{split} pictures", enabled=job.show_progress)

    def make_records(shard: int) -> Iterator[records.Record]:
        refused: list[Problem] = []
        stop = min((shard + 1) * size, len(files))
        for start in range(shard * size, stop, BATCH):
            batch = files[start : min(start + BATCH, stop)]
            yield from _label(job.images, batch, labelers, refused)
            bar.update(start + len(batch))
        problems.write(job.output, split, shard, num_shards, refused)

    try:
        shard_writer.write_split(
            job.output,
            split,
            {**recipe, "records_per_shard": size},
            num_shards,
            make_records,
            extra_fields={
                field: {"labeler": labeler.name, "axes": output.axes}
                for labeler in labelers
                for field, output in labeler.outputs.items()
            },
            process_index=job.process_index,
            process_count=job.process_count,
            allow_empty=True,
        )
        problems.finish(job.output, split, num_shards)
    finally:
        bar.close()


def _label(
    images: pathlib.Path,
    files: Sequence[str],
    labelers: Sequence[Labeler],
    refused: list[Problem],
) -> Iterator[records.Record]:
    """Records of these files; adds the files that have none to `refused`."""
    rows: list[dict[str, Any]] = []
    for file in files:
        if file.encode("utf-8", "replace").decode() == file:
            rows.append({"file": file, "path": str(images / file)})
        else:
            refused.append(Problem(file, "the name is not UTF-8"))
    for labeler in labelers:
        rows = _apply(labeler, rows, refused)
    for row in rows:
        del row["path"]
        size = sum(value.nbytes for value in row.values() if isinstance(value, np.ndarray))
        if size <= MAX_BYTES:
            yield row
        else:
            refused.append(Problem(row["file"], f"record of {size} bytes, allowed: {MAX_BYTES}"))


def _apply(
    labeler: Labeler, rows: Sequence[dict[str, Any]], refused: list[Problem]
) -> list[dict[str, Any]]:
    """The rows with the labeler's fields, without those that it refuses.

    A batch in which one is refused is labelled again, one by one: the others go on.
    """
    if not rows:
        return []
    try:
        labels = list(labeler.label(rows))
        for row, added in zip(rows, labels, strict=True):
            base.check(labeler, row, added)
    except ValueError as error:
        if len(rows) == 1:
            refused.append(Problem(rows[0]["file"], str(error)))
            return []
        return [row for one in rows for row in _apply(labeler, [one], refused)]
    return [{**row, **added} for row, added in zip(rows, labels, strict=True)]
