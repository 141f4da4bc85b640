"""One pass shows every good record once, whoever reads it, and tells which rows hold none."""

import numpy as np
import pytest

from fourm_jax.data import datasets as sources
from fourm_jax.data import pipeline
from fourm_jax.data.left_out_log import LeftOutLog, TooManyError
from fourm_jax.modalities.spec import ModalitySpec

IDS = ModalitySpec(name="ids", kind="grid", grid=(1, 2), vocab_size=1000)


class Records(list):
    """A source of given records; what is an error is raised."""

    def __getitem__(self, index):
        record = super().__getitem__(index)
        if isinstance(record, ValueError):
            raise record
        return record


def numbered(count, offset=0, damaged=()):
    records = Records({"n": np.array([offset + i, offset + i], np.uint16)} for i in range(count))
    for number in damaged:
        records[number] = ValueError("cut short")
    return records


def make(source, name="numbers", **options):
    return sources.Dataset(name=name, source=source, fields={"ids": "n"}, **options)


def kept(datasets, **options):
    batches = pipeline.one_pass(datasets, [IDS], batch_size=4, **options)
    return [batch["ids"]["ids"][valid, 0].tolist() for batch, valid in batches]


def test_one_pass_shows_every_record_once_to_all_processes_together():
    datasets = [make(numbered(5)), make(numbered(2, 100), name="b", index=1)]

    seen = [
        list(pipeline.one_pass(datasets, [IDS], batch_size=4, process_index=i, process_count=2))
        for i in range(2)
    ]

    kept = [[batch["ids"]["ids"][valid, 0].tolist() for batch, valid in part] for part in seen]
    assert kept == [[[0, 1], [4, 100]], [[2, 3], [101]]]
    with pytest.raises(ValueError, match="batch size 4, allowed: positive multiples of 3"):
        next(pipeline.one_pass(datasets, [IDS], batch_size=4, process_count=3))
    limited = pipeline.one_pass(datasets, [IDS], batch_size=4, num_records=2)
    assert [b["ids"]["ids"][valid, 0].tolist() for b, valid in limited] == [[0, 1, 100, 101]]


def test_bad_records_are_rows_that_do_not_count_and_hold_a_neighbour(capsys):
    datasets = [make(numbered(5, damaged=(0, 4))), make(numbered(2, 100), name="b", index=1)]
    log = LeftOutLog(2)
    batches = list(pipeline.one_pass(datasets, [IDS], batch_size=4, left_out=log))
    rows = [batch["ids"]["ids"][:, 0].tolist() for batch, _ in batches]
    assert rows == [[1, 1, 2, 3], [1, 100, 101, 101]]  # behind the last one comes the first good
    assert [valid.tolist() for _, valid in batches] == [
        [False, True, True, True],
        [False, True, True, False],
    ]
    assert capsys.readouterr().out.count("left-out record: data set 'numbers', record 0: cut") == 1
    assert kept(datasets, left_out=log) == [[1, 2, 3], [100, 101]]  # each is counted once
    parts = [
        kept(datasets, left_out=LeftOutLog(2), process_index=i, process_count=2) for i in (0, 1)
    ]
    assert parts == [[[1], [100]], [[2, 3], [101]]]


def test_more_bad_records_than_allowed_end_a_pass():
    broken = [make(numbered(6, damaged=(1, 5)))]
    with pytest.raises(ValueError, match="'numbers', record 1: cut short"):
        kept(broken)
    with pytest.raises(TooManyError, match=r"2 left-out records, allowed: 1 .* record 5: cut"):
        kept(broken, left_out=LeftOutLog(1))
    nothing = [make(numbered(2, damaged=(0, 1)))]
    with pytest.raises(ValueError, match="2 left-out records in one batch"):
        kept(nothing, left_out=LeftOutLog(9))
