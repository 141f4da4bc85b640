"""Shards against what was written."""

import numpy as np
import pytest

from fourm_jax.data.storage import shard_writer
from fourm_jax.jobs import scrub


@pytest.fixture
def folder(tmp_path):
    shard_writer.write_split(tmp_path, "train", {}, 2, lambda index: [{"x": np.arange(index + 1)}])
    return tmp_path


def verdicts(folder):
    return {part.path.name: (part.is_damaged, part.verdict) for part in scrub.check(folder)}


def test_every_shard_is_compared_with_its_digest(folder):
    first, second = sorted(folder.glob("*.array_record"))
    second.write_bytes(second.read_bytes()[:-1] + b"?")
    assert verdicts(folder) == {
        first.name: (False, "sound"),
        second.name: (True, "DAMAGED: not as written"),
    }


def test_shards_without_a_manifest_are_unfinished_or_have_lost_it(folder):
    (folder / "train.json").unlink()
    assert verdicts(folder) == {
        "train.json": (True, "DAMAGED: missing, and no command is writing this split")
    }
    (folder / "train-00000-of-00002.json").write_text("{}")
    assert verdicts(folder) == {
        "train.json": (False, "not finished: run the command that writes it again")
    }
