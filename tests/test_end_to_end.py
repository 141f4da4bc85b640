"""The quickstart in miniature, as a user runs it: train, kill, resume, generate, report."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.stress import children

ROOT = pathlib.Path(__file__).parents[1]
QUICKSTART = [sys.executable, "-m", "experiments.quickstart"]


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=2"),
    }


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=400, **options
    )


def kill_in_training(command: list[str], workdir: pathlib.Path) -> str:
    """Start the quickstart and send SIGTERM once the trunk has taken steps; return its output."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        deadline = time.monotonic() + 400
        while process.poll() is None and time.monotonic() < deadline:
            if list((workdir / "trunk" / "checkpoints").glob("[0-9]*")):
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.2)
        return process.communicate(timeout=100)[0]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """(workdir, output of the killed run, output of the resumed run, its bars)."""
    workdir = tmp_path_factory.mktemp("quickstart")
    command = [
        *QUICKSTART,
        f"--workdir={workdir}",
        "--config=configs/quickstart.py:runlocal",
        "--config.trunk.num_steps=30",
        "--config.trunk.checkpoint_every=10",
        "--config.trunk.optimizer.lr=1e-3",
        "--config.evaluation.conditions=(('rgb',),('caption',))",
    ]
    killed = kill_in_training(command, workdir)
    resumed = run(command)
    assert resumed.returncode == 0, killed + resumed.stdout + resumed.stderr
    return workdir, killed, resumed.stdout, resumed.stderr


def test_a_killed_run_says_so_and_the_same_command_continues_it(quickstart):
    _, killed, resumed, _ = quickstart
    assert "state saved; the same command continues from here" in killed
    assert "resuming at step" in resumed
    for phase in ("render", "text_tokenizer", "tokenizers", "tokenize"):
        assert f"{phase}: reusing" in resumed


def test_every_long_part_has_a_bar_that_says_what_it_counts(quickstart):
    _, killed, _, bars = quickstart
    for label, unit in (("trunk", "step"), ("evaluate", "modality"), ("generate", "task")):
        assert re.search(rf"{label}: .*{unit}", bars), label
    assert re.search("draw: .*gallery", bars)
    for name in ("rgb", "depth", "normal", "semseg"):
        assert re.search(rf"tokenizer {name}: .*step", killed), name


def test_the_log_has_every_step_once_over_the_interruption(quickstart):
    workdir, *_ = quickstart
    lines = (workdir / "trunk" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(set(steps))
    assert steps[-1] == 30


def test_the_report_is_one_page_that_needs_no_network(quickstart):
    workdir, _, resumed, _ = quickstart
    page = (workdir / "report.html").read_text()
    assert f"report: {workdir / 'report.html'}" in resumed
    assert page.count("data:image/png;base64,") > 20
    assert "From rgb to everything else" in page
    assert "From caption to everything else" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert (workdir / "gallery.png").stat().st_size > 1000


def test_metrics_json_has_every_task_beside_its_two_lines(quickstart):
    workdir, *_ = quickstart
    summary = json.loads((workdir / "metrics.json").read_text())
    assert set(summary) == {"seconds", "peak_rss_gb", "device", "commit", "tasks"}
    assert summary["seconds"]["total"] == pytest.approx(
        sum(value for name, value in summary["seconds"].items() if name != "total"), abs=0.1
    )
    metrics = {name: task["metric"] for name, task in summary["tasks"].items()}
    assert metrics["rgb->tok_semseg"] == "miou"
    assert metrics["rgb->tok_depth"] == "mae"
    assert metrics["rgb->tok_normal"] == "mean_angular_error_deg"
    assert metrics["rgb->caption"] == "colour_shape_accuracy"
    assert metrics["caption->tok_rgb"] == "colour_f1"
    for task in summary["tasks"].values():
        assert {"model", "tokenizer_bound", "constant", "n"} <= set(task)
        assert task["n"] == 8


def test_a_finished_run_generates_from_the_command_line(quickstart, tmp_path):
    workdir, *_ = quickstart
    picture = tmp_path / "generated.png"
    done = run(
        [
            sys.executable,
            "-m",
            "experiments.generate",
            f"--source={workdir}",
            "--conditions=rgb",
            "--targets=tok_depth,caption",
            f"--output={picture}",
        ]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"rgb -> tok_depth, caption: {picture}" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_unknown_condition_is_one_line_that_names_the_allowed_ones(quickstart, nursery):
    workdir, *_ = quickstart
    refused = nursery.command("generate", [f"--source={workdir}", "--conditions=rbg"], {})
    assert refused.code() == children.ERROR
    assert "'rbg'; did you mean 'rgb'?" in refused.log
    assert "Traceback" not in refused.log


def test_a_workdir_of_another_run_is_refused_and_left_alone(quickstart, nursery):
    workdir, *_ = quickstart
    before = sorted(path.name for path in (workdir / "trunk" / "checkpoints").iterdir())
    arguments = [f"--workdir={workdir / 'trunk'}", "--config=configs/scenes.py:runlocal"]
    refused = nursery.command("train", arguments, {})
    assert refused.code() == children.ERROR
    assert "holds another run's checkpoint" in refused.log
    assert "num_steps is 30 there, 4 here" in refused.log
    assert before == sorted(path.name for path in (workdir / "trunk" / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("command", "config", "typed", "meant"),
    [
        ("quickstart", [], "trunk.optimzer.lr", "trunk.opt"),  # its default config
        ("train", ["--config=configs/scenes.py"], "optimzer.lr", "optimizer.lr'"),
    ],
)
def test_a_misspelt_config_key_names_the_nearest_one(
    command, config, typed, meant, nursery, tmp_path
):
    arguments = [*config, f"--workdir={tmp_path}", f"--config.{typed}=1"]
    refused = nursery.command(command, arguments, {})
    assert refused.code() == children.ERROR
    (line,) = refused.log.strip().splitlines()
    assert line.startswith(f"error: unknown config key '{typed}'; did you mean '{meant}")
    assert not list(tmp_path.iterdir())
