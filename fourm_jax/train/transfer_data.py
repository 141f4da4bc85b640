"""Labelled records for a transfer: inputs as the trunk reads them, labels checked before a step."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from fourm_jax.data import channels, collate, datasets, in_memory, reading
from fourm_jax.data.datasets import Dataset
from fourm_jax.data.storage import left_out
from fourm_jax.data.storage.left_out import RecordError
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers import base
from fourm_jax.tokenizers.trained import TrainedTokenizer
from fourm_jax.train.transfer_task import LABEL, Labels
from fourm_jax.utils import errors

MAX_IN_MEMORY = 16_384  # records that are read, tokenized and checked once, before the first step


@dataclasses.dataclass(frozen=True)
class First:
    """The first `size` records of a source."""

    source: datasets.Source
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[index]

    def place(self, index: int) -> str:
        """Where a record lies, for messages."""
        return datasets.place(self.source, index)


@dataclasses.dataclass(frozen=True)
class LabelledTokens:
    """Reader of batches that hold labels beside the inputs (`data.reading.Reader`)."""

    datasets: tuple[Dataset, ...]
    specs: tuple[ModalitySpec, ...]
    labels: Labels

    def combine(
        self, rows: Sequence[Mapping[str, Any]], datasets: Sequence[Dataset], draws: Sequence[float]
    ) -> Any:
        """Batch of these records; RecordError names the row of a bad one."""
        fields, mixtures = [d.fields for d in datasets], [d.index for d in datasets]
        batch: Any = collate.collate(rows, fields, mixtures, self.specs, draws)
        size = self.specs[0].image_shape[:2]
        labels = [label_of(row, number, self.labels, size) for number, row in enumerate(rows)]
        return {**batch, LABEL: np.stack(labels)}


def open_reader(
    groups: Sequence[Mapping[str, Any]],
    split: str,
    specs: Sequence[ModalitySpec],
    labels: Labels,
    *,
    predicted: Sequence[str] = (),
    num_records: int = 0,
    tokenizers: str = "",
    max_left_out_records: int = 0,
) -> LabelledTokens:
    """Open the labelled data sets of a config.

    Args:
      groups: as `datasets.make_datasets` takes them.
      predicted: inputs that the task makes itself.
      num_records: the first so many of each data set; 0 = all.
      tokenizers: folder of those that make the tokens that the records lack.
      max_left_out_records: so many of a data set may be bad: whoever reads one meets a RecordError.

    Raises:
      ValueError: no record in this split or fewer than are asked for, a tokenizer that is missing,
        more bad records than that, labels that do not fit among them.
    """
    opened = []
    read = [spec for spec in specs if spec.name not in predicted]
    for dataset, group in zip(datasets.make_datasets(groups, split), groups, strict=True):
        dataset = channels.pick(dataset, group.get("channels", {}), specs)
        size = len(dataset.source)
        if not size:
            raise ValueError(f"data set {dataset.name!r} has no record of {split!r}")
        if not 0 <= num_records <= size:
            raise ValueError(
                f"transfer.num_{split} is {num_records}: data set {dataset.name!r} has {size} "
                f"records of {split!r}, allowed: 1..{size}, or 0 for all"
            )
        source: datasets.Source = First(dataset.source, num_records or size)
        if len(source) <= MAX_IN_MEMORY:
            rows = _read_all(dataset, len(source), labels, specs[0].image_shape[:2])
            _check_left_out(dataset, rows, max_left_out_records)
            rows = _prepare(dataset, rows, read, labels, tokenizers)
            _check_left_out(dataset, rows, max_left_out_records)
            source = in_memory.Rows(rows)
        opened.append(dataclasses.replace(dataset, source=source))
    return LabelledTokens(tuple(opened), tuple(specs), labels)


def label_of(
    record: Mapping[str, Any], row: int, labels: Labels, size: tuple[int, int]
) -> np.ndarray:
    """The label of a record, int32 classes or float32 values.

    Args:
      row: of the batch, for the error.
      size: of the picture, which label maps must have.

    Raises:
      RecordError: no label, one of another shape, a class that does not exist.
    """
    if labels.field not in record:
        raise RecordError(
            "missing_field", errors.unknown_value("record field", labels.field, record), row
        )
    value = np.asarray(record[labels.field])
    expected = size if labels.has_pixels else ()
    if not labels.has_classes and (labels.num_outputs > 1 or labels.has_pixels):
        expected = (*expected, labels.num_outputs) if labels.num_outputs > 1 else expected
    if value.shape != expected:
        message = f"label {labels.field!r} has shape {value.shape}, expected {expected}"
        raise RecordError("wrong_shape", message, row)
    if not labels.has_classes:
        return value.astype(np.float32)
    if value.dtype.kind not in "iu":
        message = f"label {labels.field!r} has dtype {value.dtype}, expected class indices"
        raise RecordError("wrong_type", message, row)
    wrong = value[((value < 0) | (value >= labels.num_outputs)) & (value != labels.ignored)]
    if wrong.size:
        message = (
            f"label {labels.field!r} has class {int(wrong.flat[0])}, allowed: "
            f"0..{labels.num_outputs - 1}, and {labels.ignored} for what does not count"
        )
        raise RecordError("class_outside", message, row)
    return value.astype(np.int32)


def _read_all(
    dataset: Dataset, size: int, labels: Labels, picture: tuple[int, int]
) -> list[dict[str, Any] | ValueError]:
    """The first records, each with a label that fits, or why it cannot be used."""
    rows: list[dict[str, Any] | ValueError] = []
    for number, row in enumerate(datasets.read_records(dataset.source, range(size), dataset.name)):
        if isinstance(row, ValueError):
            rows.append(row)
            continue
        label = left_out.attempt(label_of, row, number, labels, picture)
        rows.append(label if isinstance(label, ValueError) else dict(row))
    return rows


def _check_left_out(
    dataset: Dataset, rows: Sequence[dict[str, Any] | ValueError], limit: int
) -> None:
    bad = [(number, row) for number, row in enumerate(rows) if isinstance(row, ValueError)]
    if len(bad) > limit:
        more = f"{len(bad)} left-out records, allowed: {limit}; the first: " if limit else ""
        raise ValueError(more + reading.describe(dataset, *bad[0])) from bad[0][1]


def _prepare(
    dataset: Dataset,
    rows: Sequence[dict[str, Any] | ValueError],
    specs: Sequence[ModalitySpec],
    labels: Labels,
    tokenizers: str,
) -> list[dict[str, Any] | ValueError]:
    """The records with the tokens that they lack; only what is used.

    A record whose signal the tokenizer does not take becomes the error that says so.
    """
    good = [row for row in rows if not isinstance(row, ValueError)]
    if labels.problem == "class_map":
        _check_classes(dataset, good, labels)
    wanted = {labels.field, *dataset.fields.values()}
    for spec in specs:
        field = dataset.fields.get(spec.name, spec.name)
        if spec.is_token and not any(field in row for row in good):
            rows = _with_tokens(rows, field, spec, tokenizers)
    return [
        row
        if isinstance(row, ValueError)
        else {name: value for name, value in row.items() if name in wanted}
        for row in rows
    ]


def _check_classes(dataset: Dataset, rows: Sequence[Mapping[str, Any]], labels: Labels) -> None:
    """Refuse masks in which only class 0 counts, such as black and white ones.

    Raises:
      ValueError: what is not 0 has the value that counts nowhere.
    """
    has_ignored = False
    for row in rows:
        value = np.asarray(row[labels.field])
        ignored = value == labels.ignored
        if ((value != 0) & ~ignored).any():
            return
        has_ignored = has_ignored or bool(ignored.any())
    if has_ignored:
        raise ValueError(
            f"data set {dataset.name!r}: label {labels.field!r} has class 0 and "
            f"{labels.ignored}, which does not count, and no other class; masks in black and white "
            "need 0 and 1"
        )


def _with_tokens(
    rows: Sequence[dict[str, Any] | ValueError], field: str, spec: ModalitySpec, tokenizers: str
) -> list[dict[str, Any] | ValueError]:
    """The records with the raw signal of those that have it encoded."""
    folder = epath.Path(tokenizers).expanduser() / spec.tokenizer if tokenizers else None
    if folder is None or not folder.is_dir():
        where = f"no tokenizer {folder}" if folder else "transfer.tokenizers names no folder"
        raise ValueError(f"input {spec.name!r} is in no record, and {where}")
    tokenizer = base.load(folder)
    if not isinstance(tokenizer, TrainedTokenizer):
        raise ValueError(f"input {spec.name!r}: texts are tokenized beforehand")
    found, by_shape = list(rows), collections.defaultdict(list)
    for number, row in enumerate(rows):
        if isinstance(row, ValueError) or spec.source not in row:
            continue
        refused = left_out.attempt(
            lambda raw: tokenizer.check(np.asarray(raw)[None]), row[spec.source]
        )
        if isinstance(refused, ValueError):
            reason = left_out.reason_of(refused, "bad_value")
            found[number] = RecordError(reason, f"input {spec.name!r}: {refused}")
        else:
            by_shape[np.shape(row[spec.source])].append((number, row))
    for group in by_shape.values():
        raw = np.stack([row[spec.source] for _, row in group])
        for (number, row), ids in zip(group, tokenizer.encode(raw), strict=True):
            found[number] = {**row, field: ids.ravel()}
    return found
