"""Shards are complete or absent, equal for any number of writers, and checked when opened."""

import json
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from fourm_jax.data.sources import token_shards
from fourm_jax.data.storage import shard_writer, shards

RECIPE = {"source": "numbers"}


def numbers(shard):
    return ({"value": np.array([10 * shard + i], np.int32)} for i in range(3))


def write(directory, num_shards=2, make_records=numbers, recipe=RECIPE, **options):
    shard_writer.write_split(directory, "train", recipe, num_shards, make_records, **options)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def values(reader):
    return [int(reader[i]["value"][0]) for i in range(len(reader))]


def test_records_are_read_by_index_across_shards(tmp_path):
    write(tmp_path, extra_fields={"value": {"vocab_size": 99}})

    reader = token_shards.make_source("train", directory=tmp_path)

    assert values(reader) == [0, 1, 2, 10, 11, 12]
    assert reader.fields == {"value": {"dtype": "int32", "shape": [1], "vocab_size": 99}}
    assert reader.place(4).endswith("train-00001-of-00002.array_record, record 1")
    assert sorted(contents(tmp_path)) == [
        "train-00000-of-00002.array_record",
        "train-00001-of-00002.array_record",
        "train.json",
    ]


def test_a_folder_that_is_written_anew_is_read_anew(tmp_path):
    write(tmp_path)
    assert values(token_shards.make_source("train", directory=tmp_path))[0] == 0
    shutil.rmtree(tmp_path)
    write(tmp_path, make_records=lambda shard: iter([{"value": np.array([7 + shard], np.int32)}]))
    assert values(token_shards.make_source("train", directory=tmp_path)) == [7, 8]


def test_a_reader_can_be_sent_to_a_worker_process(tmp_path):
    write(tmp_path)
    reader = shards.Reader(tmp_path, "train")
    reader[0]

    assert values(pickle.loads(pickle.dumps(reader))) == values(reader)


@pytest.mark.parametrize(
    ("allowed", "open_shards"), [(256, 128), (1024, 512), (20_000, 1024), (-1, 1024)]
)
def test_open_shards_leave_half_of_the_files_that_a_process_may_have(
    allowed, open_shards, monkeypatch
):
    monkeypatch.setattr(shards.resource, "getrlimit", lambda which: (allowed, allowed))
    assert shards._most_open() == open_shards


def test_any_number_of_processes_writes_the_same_files(tmp_path):
    write(tmp_path / "one", 5)
    for index in (2, 0, 1):
        write(tmp_path / "three", 5, process_index=index, process_count=3)

    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_a_killed_writer_continues_without_a_lost_or_doubled_record(tmp_path):
    written = []

    def killed_in_shard_1(shard):
        for number, record in enumerate(numbers(shard)):
            if (shard, number) == (1, 1):
                raise KeyboardInterrupt
            yield record

    def counted(shard):
        written.append(shard)
        return numbers(shard)

    write(tmp_path / "whole", 3)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "killed", 3, killed_in_shard_1)
    with pytest.raises(ValueError, match="not finished"):
        shards.Reader(tmp_path / "killed", "train")
    write(tmp_path / "killed", 3, counted)

    assert written == [1, 2]  # shard 0 was kept
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_kill_9_leaves_nothing_behind_once_the_split_is_finished(tmp_path):
    program = f"""
import os, signal
import numpy as np
from fourm_jax.data.storage import shard_writer

def killed(shard):
    yield {{"value": np.array([10 * shard], np.int32)}}
    if shard == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    yield {{"value": np.array([10 * shard + 1], np.int32)}}
    yield {{"value": np.array([10 * shard + 2], np.int32)}}

shard_writer.write_split({str(tmp_path / "killed")!r}, "train", {RECIPE!r}, 2, killed)
"""
    result = subprocess.run([sys.executable, "-c", program], check=False)
    assert result.returncode == -signal.SIGKILL
    assert any(name.endswith(".tmp") for name in contents(tmp_path / "killed"))

    write(tmp_path / "killed")
    write(tmp_path / "whole")

    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("done", [0, 1, 3])
def test_a_writer_stops_where_another_one_has_finished_the_split(done, tmp_path):
    """As after a restart of a job whose old process is still alive."""
    begun = []

    def overtaken(shard):
        begun.append(shard)
        for number, record in enumerate(numbers(shard)):
            if (shard, number) == (1, done):
                write(tmp_path / "both", 3)  # the other one, from here to the end
            yield record
        if (shard, done) == (1, 3):
            write(tmp_path / "both", 3)

    write(tmp_path / "one", 3)
    write(tmp_path / "both", 3, overtaken)

    assert begun == [0, 1]
    assert contents(tmp_path / "both") == contents(tmp_path / "one")


def test_a_finished_split_is_not_written_again(tmp_path):
    write(tmp_path)
    before = contents(tmp_path)

    write(tmp_path, make_records=lambda shard: pytest.fail("written twice"))

    assert contents(tmp_path) == before


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_of_another_recipe_is_not_touched(tmp_path, finished):
    write(tmp_path, process_count=1 if finished else 2)
    before = contents(tmp_path)

    with pytest.raises(ValueError, match="source: found 'numbers', asked 'letters'"):
        write(tmp_path, recipe={"source": "letters"})

    assert contents(tmp_path) == before


def test_splits_whose_names_share_a_beginning_do_not_mix(tmp_path):
    write(tmp_path, process_count=2)

    with pytest.raises(ValueError, match="'train-large'"):
        shard_writer.write_split(tmp_path, "train-large", RECIPE, 1, numbers)


def test_a_split_without_records_is_written_and_refused_when_it_is_opened(tmp_path):
    write(tmp_path, make_records=lambda shard: iter(()))

    with pytest.raises(ValueError, match="the split has no records"):
        shards.Reader(tmp_path, "train")


def test_a_record_that_cannot_be_stored_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"train-00000-of-00002.*record 0.*'value'.*object"):
        write(tmp_path, make_records=lambda shard: [{"value": np.array([None])}])

    assert contents(tmp_path) == {}


def test_an_unknown_split_names_the_ones_that_are_there(tmp_path):
    write(tmp_path)

    with pytest.raises(ValueError, match=r"val\.json.*\['train'\]"):
        shards.Reader(tmp_path, "val")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path, data: path.unlink(), "missing, expected 3 records"),
        (lambda path, data: path.write_bytes(b""), r"is empty: expected \d+ bytes, found 0"),
        (lambda path, data: path.write_bytes(data[:-9]), r"cut short.*expected \d+ bytes"),
        (lambda path, data: path.write_bytes(bytes(len(data))), "found a damaged file"),
    ],
)
def test_a_damaged_shard_is_named_before_anything_is_read(tmp_path, change, message):
    write(tmp_path)
    path = tmp_path / "train-00001-of-00002.array_record"
    change(path, path.read_bytes())

    with pytest.raises(ValueError, match=f"train-00001-of-00002.*{message}"):
        shards.Reader(tmp_path, "train")


def test_another_number_of_records_than_the_manifest_says_is_an_error(tmp_path):
    write(tmp_path)
    manifest = json.loads((tmp_path / "train.json").read_text())
    manifest["shards"][0]["num_records"] = 4
    (tmp_path / "train.json").write_text(json.dumps(manifest))

    with pytest.raises(ValueError, match="expected 4 records, found 3"):
        shards.Reader(tmp_path, "train")


def test_a_record_whose_bytes_were_changed_is_named_when_read(tmp_path):
    def large(shard):
        rng = np.random.default_rng(shard)
        return ({"x": rng.integers(0, 256, 4000, dtype=np.uint8)} for _ in range(4))

    write(tmp_path, 1, large)
    path = tmp_path / "train-00000-of-00001.array_record"
    data = bytearray(path.read_bytes())
    data[5000:5008] = bytes(8)  # inside the records, not in a block header
    path.write_bytes(data)
    reader = shards.Reader(tmp_path, "train")

    with pytest.raises(ValueError, match=r"train-00000-of-00001\.array_record, record \d"):
        [reader[i] for i in range(4)]


@pytest.mark.parametrize("text", ["", "[]", '{"version": 99}', '{"version": 1, "shards": []}'])
def test_a_broken_manifest_is_named(tmp_path, text):
    write(tmp_path)
    (tmp_path / "train.json").write_text(text)

    with pytest.raises(ValueError, match=r"train\.json"):
        shards.Reader(tmp_path, "train")


def test_a_full_disk_names_the_shard_and_leaves_nothing_on_it(tmp_path, monkeypatch):
    class Full:
        """The library's writer on a full disk."""

        def __init__(self, path, options):
            pathlib.Path(path).write_bytes(b"half")

        def write(self, record):
            raise RuntimeError("RESOURCE_EXHAUSTED: No space left on device\nat writer.cc:7")

        def close(self):
            raise RuntimeError("closed twice")

    monkeypatch.setattr(shard_writer.array_record_module, "ArrayRecordWriter", Full)
    expected = r"train-00000-of-00002.array_record cannot be written: .*No space left on device$"
    with pytest.raises(OSError, match=expected):
        write(tmp_path)
    assert contents(tmp_path) == {}
