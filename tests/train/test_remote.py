"""Runs in an object store: the same code, on a bucket of the test's own (gs://bucket)."""

import json
import os
import pathlib
import re

import jax
import numpy as np
import pytest
from etils import epath
from etils.epath import backend, gpath
from orbax.checkpoint._src.path import gcs_utils

from fourm_jax.models import trained
from fourm_jax.tokenizers import base
from fourm_jax.train import export, loop, profile, stored_arrays
from fourm_jax.utils import folder_lock, io
from tests.train import tiny


class Bucket(backend._OsPathBackend):
    """Objects of gs://… as files of a local folder; nothing can be appended to."""

    def __init__(self, folder):
        self.folder = folder

    def _local(self, path):
        assert os.fspath(path).startswith("gs://"), path
        return self.folder / os.fspath(path).removeprefix("gs://")

    def open(self, path, mode):
        assert "a" not in mode, "an object is written whole"
        if "w" in mode:  # there are no folders
            self._local(path).parent.mkdir(parents=True, exist_ok=True)
        return super().open(self._local(path), mode)

    def glob(self, path):
        found = self.folder.glob(os.fspath(path).removeprefix("gs://"))
        return [f"gs://{one.relative_to(self.folder)}" for one in found]

    def rename(self, path, dst):
        self._local(path).rename(self._local(dst))

    def replace(self, path, dst):
        raise AssertionError(f"{path}: an object is written whole")


def _of_local(name):
    return lambda self, path, *args, **options: getattr(backend._OsPathBackend, name)(
        self, self._local(path), *args, **options
    )


for _name in ("exists", "isdir", "listdir", "makedirs", "mkdir", "rmtree", "remove", "stat"):
    setattr(Bucket, _name, _of_local(_name))


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """Path of the folder behind gs://; arrays of checkpoints go there by tensorstore's own way."""
    folder = tmp_path / "store"
    (folder / "bucket").mkdir(parents=True)
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", Bucket(folder))
    monkeypatch.setattr(gcs_utils, "is_hierarchical_namespace_enabled", lambda path: False)

    def local(path):
        return {"driver": "file", "path": f"{folder}/{path.removeprefix('gs://')}"}

    monkeypatch.setattr(gcs_utils, "get_kvstore_for_gcs", local)
    monkeypatch.setattr(stored_arrays, "_spec", local)
    monkeypatch.chdir(tmp_path)
    return folder / "bucket"


CONFIG = {"num_steps": 4, "checkpoint_every": 2, "log_every": 2, "keep_checkpoints": 2}


def test_a_tokenizer_is_trained_continued_and_saved_in_a_bucket(bucket, tmp_path):
    config, workdir = tiny.tokenizer(**CONFIG), epath.Path("gs://bucket/run")
    loop.train(tiny.tokenizer(**{**CONFIG, "num_steps": 2}), workdir)
    result = loop.train(config, workdir)
    local = loop.train(config, tmp_path / "local")
    jax.tree.map(np.testing.assert_array_equal, result.state.params, local.state.params)
    found = trained.load(workdir)
    assert found.step == 4
    expected = jax.device_get(local.state.eval_params)
    jax.tree.map(np.testing.assert_array_equal, dict(found.params), dict(expected))
    lines = (bucket / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]
    assert list((bucket / "run/tensorboard").iterdir())
    assert json.loads((bucket / "run/checkpoints/4/arrays.json").read_text())
    assert loop.train(config, workdir).state.step == 4  # finished: reused
    export.save_tokenizer(config, result.state, workdir / "tokenizer")
    export.save_tokenizer(config, result.state, workdir / "tokenizer")  # replaces it
    assert sorted(p.name for p in (bucket / "run/tokenizer").iterdir()) == [
        "card.json",
        "weights.safetensors",
    ]
    assert base.load(workdir / "tokenizer").card.training_steps == 4
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("gs")]


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(bucket, capsys):
    workdir = epath.Path("gs://bucket/run")
    config = tiny.tokenizer(**CONFIG)
    before = loop.train(config, workdir)
    for damaged in (bucket / "run/checkpoints/4/state").glob("ocdbt.process_0/d/*"):
        damaged.write_bytes(b"x" * damaged.stat().st_size)
    assert trained.load(workdir).step == 2
    again = loop.train(config, workdir)
    assert "checkpoint gs://bucket/run/checkpoints/4 cannot be read" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, again.state.params, before.state.params)


def test_a_bucket_in_use_is_refused(bucket):
    with (
        folder_lock.hold("gs://bucket/run"),
        pytest.raises(ValueError, match="gs://bucket/run is in use by process"),
        folder_lock.hold("gs://bucket/run"),
    ):
        pass
    assert not (bucket / "run/writer.json").exists()


def test_the_lock_of_a_bucket_is_touched_by_writing_it_again(bucket, monkeypatch):
    monkeypatch.setattr(folder_lock, "BEAT_SECONDS", 0.01)
    with folder_lock.hold("gs://bucket/run"):
        path = bucket / "run/writer.json"
        os.utime(path, (0, 0))
        while path.stat().st_mtime == 0 or not path.read_text():  # a store would show no part
            pass
        assert json.loads(path.read_text())["process"] == os.getpid()


def test_what_is_appended_to_an_object_is_its_end(bucket):
    for part in (b"one ", b"two"):
        io.append("gs://bucket/file", part)
    assert (bucket / "file").read_bytes() == b"one two"


def test_a_trace_is_refused_in_one_line():
    with pytest.raises(ValueError, match=re.escape("profile in gs://b/run: traces are written to")):
        profile.Profile("gs://b/run", 1, 2)


def test_tensorstore_finds_arrays_of_a_bucket_under_its_own_name():
    assert stored_arrays._spec("gs://b/run/state/") == {
        "driver": "gcs",
        "bucket": "b",
        "path": "run/state/",
    }


def test_paths_of_objects_stay_as_they_are():
    place = trained.Place(workdir="gs://b/run", current="/home")
    assert place.leads_to("gs://b/data") == {"gs://b/data"}
    assert place.leads_to("../data") == {"/data"}
    assert pathlib.Path(trained.absolute_path("x/../y", "/home")) == pathlib.Path("/home/y")
