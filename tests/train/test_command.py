"""`python -m experiments.train`: wrong input ends in one line, before anything is written."""

import pathlib
import subprocess
import sys

import pytest

from fourm_jax.utils import digests

ROOT = pathlib.Path(__file__).parents[2]


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments.train", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.optimzer.lr=1", "unknown config key 'optimzer.lr'; did you mean 'optimizer.lr'"),
        ("--config=configs/quickstart.py:runlocal", "no config of a training: it has no key"),
        ("--config.mesh.tensor=3", "mesh {'data': -1, 'fsdp': 1, 'tensor': 3} does not cover"),
    ],
)
def test_wrong_input_is_one_line(flag, message, tmp_path):
    workdir = tmp_path / "run"
    config = "--config=configs/scenes.py:runlocal"
    result = command(config, f"--workdir={workdir}", flag)
    assert result.returncode != 0
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(f"error: {message}")
    assert not workdir.exists()


def test_help_explains_config_and_workdir():
    shown = command("--help").stdout
    assert "Run it again" in shown or "run it again" in shown
    assert "--workdir" in shown


def scrub(workdir):
    return subprocess.run(
        [sys.executable, "-m", "experiments.scrub", f"--source={workdir}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_scrub_names_the_damaged_files_of_a_run(tmp_path):
    for step in ("3", "20"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
        (tmp_path / "checkpoints" / step / "arrays").write_bytes(b"abc")
        digests.write(tmp_path / "checkpoints" / step)
    assert scrub(tmp_path).returncode == 0
    (tmp_path / "checkpoints" / "20" / "arrays").write_bytes(b"abd")
    found = scrub(tmp_path)
    first, second = found.stdout.splitlines()
    assert first.endswith("3: sound")
    assert second.endswith("20: DAMAGED: arrays not as written")
    assert found.returncode == 1
    assert "1 of 2 parts are damaged" in found.stderr
