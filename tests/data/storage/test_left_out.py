"""One list per split says what was left out, whoever wrote its parts and however often."""

import json
import pickle

import numpy as np
import pytest

from fourm_jax.data.storage import left_out, shard_writer
from fourm_jax.data.storage.left_out import LeftOutRecord, RecordError


def write(directory, entries, **options):
    """A split of one record per shard whose shards left `entries` out."""

    def make_records(shard):
        yield {"n": np.zeros(1, np.uint8)}
        left_out.write_part(directory, "train", shard, len(entries), entries[shard])

    shard_writer.write_split(directory, "train", {}, len(entries), make_records, **options)
    left_out.finish(directory, "train", len(entries))


BAD_DOG = LeftOutRecord(place="dog.jpg", reason="too_large", message="9 GB")
NO_TEXT = LeftOutRecord(
    place="a.tar", record="a/1", modality="caption", reason="missing", message="no a/1", kept=True
)
NO_SHARD = LeftOutRecord(place="b.tar", modality="caption", reason="missing", message="no b")


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_the_parts_become_one_list_when_the_last_process_is_done(tmp_path):
    entries = [[BAD_DOG], [], [NO_TEXT, NO_SHARD]]
    write(tmp_path, entries, process_index=1, process_count=2)
    assert list(left_out.read(tmp_path, "train")) == []  # shard 1 left nothing out
    assert "train-00001-of-00003.left_out.jsonl" in names(tmp_path)

    write(tmp_path, entries, process_index=0, process_count=2)

    assert list(left_out.read(tmp_path, "train")) == [BAD_DOG, NO_TEXT, NO_SHARD]
    assert [name for name in names(tmp_path) if "left_out" in name] == ["train.left_out.jsonl"]
    lines = (tmp_path / "train.left_out.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"place": "dog.jpg", "reason": "too_large", "message": "9 GB"}


def test_a_record_that_was_kept_is_not_gone(tmp_path):
    clipped = LeftOutRecord(
        place="0.array_record", record=0, reason="clipped", message="1", kept=True, num_clipped=1
    )
    damaged = LeftOutRecord(place="0.array_record", record=1, reason="damaged", message="cut")
    write(tmp_path, [[clipped], [damaged, NO_TEXT]])
    assert left_out.gone(tmp_path, "train") == {1}


def test_a_summary_counts_records_apart_from_modalities_and_whole_shards(tmp_path):
    write(tmp_path, [[BAD_DOG, NO_TEXT, NO_SHARD]])

    summary = left_out.summarize(tmp_path, "train")

    assert (summary.num_records, summary.num_incomplete) == (1, 1)
    assert summary.reasons == {"missing": 2, "too_large": 1}
    assert summary.modalities == {"caption": 2}


def test_a_process_killed_while_it_joined_the_parts_loses_no_line(tmp_path):
    write(tmp_path, [[BAD_DOG]])
    (tmp_path / "train-00000-of-00001.left_out.jsonl").write_text("")  # was not removed yet
    (tmp_path / "train.left_out.jsonl.77.tmp").write_text("half a line")

    left_out.finish(tmp_path, "train", 1)

    assert list(left_out.read(tmp_path, "train")) == [BAD_DOG]
    assert names(tmp_path) == [
        "train-00000-of-00001.array_record",
        "train.json",
        "train.left_out.jsonl",
    ]


def test_a_folder_with_the_lists_of_an_older_version_is_read_without_them(tmp_path):
    write(tmp_path, [[]])
    (tmp_path / "train.left_out.jsonl").unlink()
    (tmp_path / "problems").mkdir()
    (tmp_path / "problems" / "train-00000-of-00001.jsonl").write_text('{"file": "a"}\n')

    left_out.finish(tmp_path, "train", 1)

    assert left_out.summarize(tmp_path, "train").num_records == 0


def test_a_message_that_quotes_too_much_is_cut(tmp_path):
    long = LeftOutRecord(place="a", reason="bad_value", message="x" * 10_000)
    write(tmp_path, [[long]])

    (one,) = left_out.read(tmp_path, "train")
    assert one.message == "x" * 500


def test_an_error_keeps_its_reason_between_processes():
    error = pickle.loads(pickle.dumps(RecordError("too_large", "9 GB", row=3)))

    assert (error.reason, error.row, str(error)) == ("too_large", 3, "9 GB")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RecordError("too_large", "9 GB"), "too_large"),
        (ValueError("no"), "otherwise"),
        (KeyError("no"), "bad_value"),
    ],
)
def test_whatever_a_function_raises_becomes_a_reason(error, reason):
    def fail():
        raise error

    assert left_out.reason_of(left_out.attempt(fail), "otherwise") == reason
