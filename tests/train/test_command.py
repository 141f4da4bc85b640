"""`python -m experiments.train`: wrong input ends in one line, before anything is written."""

import pytest

from fourm_jax.utils import digests
from tests.stress import children


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.optimzer.lr=1", "unknown config key 'optimzer.lr'; did you mean 'optimizer.lr'"),
        ("--config=configs/quickstart.py:runlocal", "no config of a training: it has no key"),
        ("--config.mesh.tensor=3", "mesh {'data': -1, 'fsdp': 1, 'tensor': 3} does not cover"),
    ],
)
def test_wrong_input_is_one_line(flag, message, nursery, tmp_path):
    workdir = tmp_path / "run"
    config = "--config=configs/scenes.py:runlocal"
    refused = nursery.command("train", [config, f"--workdir={workdir}", flag], {})
    assert refused.code() == children.ERROR
    (line,) = refused.log.strip().splitlines()
    assert line.startswith(f"error: {message}")
    assert not workdir.exists()


def test_help_explains_config_and_workdir(nursery):
    shown = nursery.command("train", ["--help"], {})
    shown.code()  # it has ended
    assert "Run it again" in shown.log or "run it again" in shown.log
    assert "--workdir" in shown.log


def test_scrub_names_the_damaged_files_of_a_run(nursery, tmp_path):
    for step in ("3", "20"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
        (tmp_path / "checkpoints" / step / "arrays").write_bytes(b"abc")
        digests.write(tmp_path / "checkpoints" / step)
    assert nursery.command("scrub", [f"--source={tmp_path}"], {}).code() == 0
    (tmp_path / "checkpoints" / "20" / "arrays").write_bytes(b"abd")
    found = nursery.command("scrub", [f"--source={tmp_path}"], {})
    assert found.code() == children.ERROR
    first, second, error = found.log.splitlines()
    assert first.endswith("3: sound")
    assert second.endswith("20: DAMAGED: arrays not as written")
    assert "1 of 2 parts are damaged" in error
