"""Scripts that start trainings elsewhere: what they would run, and what they refuse."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests import howto_pages

ROOT = pathlib.Path(__file__).parents[2]
SLICE, SLURM = ROOT / "experiments/tpu/slice.sh", ROOT / "experiments/gpu/train.sh"
XPK = ROOT / "experiments/tpu/xpk.sh"
SHELLCHECK = shutil.which(
    "shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
)
PLACE = {"PROJECT": "p", "ZONE": "z", "NAME": "n", "PATH": "/usr/bin:/bin"}


def run(script, *arguments, **environment):
    command = ["bash", str(script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("create", ["queued-resources create n --project=p --zone=z --node-id=n", "v5litepod-16"]),
        ("install", ["git archive", "tpu-vm scp", "--worker=all"]),
        ("start", ["--worker=all", "experiments.train", "--workdir=gs://b/r", "--cluster"]),
        ("watch", ["--worker=0", "train.log"]),
        ("resume", ["queued-resources delete", "queued-resources create", "experiments.train"]),
        ("delete", ["queued-resources delete n"]),
    ],
)
def test_every_command_of_a_slice_says_what_it_would_do(command, parts):
    more = {"ACCELERATOR": "v5litepod-16", "WORKDIR": "gs://b/r"}
    done = run(SLICE, "--dry_run", command, **PLACE, **more)
    assert done.returncode == 0, done.stderr
    plain = done.stdout.replace("\\", "")
    assert all(part in plain for part in parts), plain


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("create", ["cluster create", "--tpu-type=v5litepod-16 --num-slices=2 --on-demand"]),
        ("start", ["workload create", "--workload=n", "--max-restarts=100", "--workdir=gs://b/r"]),
        ("list", ["workload list"]),
        ("watch", ["kubectl logs --follow", "jobset-name=n"]),
        ("stop", ["workload delete", "--workload=n"]),
        ("delete", ["cluster delete"]),
    ],
)
def test_every_command_of_a_cluster_says_what_it_would_do(command, parts):
    more = {"ACCELERATOR": "v5litepod-16", "SLICES": "2", "WORKDIR": "gs://b/r", "CLUSTER": "c"}
    done = run(XPK, "--dry_run", command, **PLACE, **more)
    assert done.returncode == 0, done.stderr
    plain = done.stdout.replace("\\", "")
    assert all(part in plain for part in parts), plain
    assert "--cluster=c" in plain or command == "watch"


def test_a_cluster_without_a_name_is_refused():
    done = run(XPK, "--dry_run", "list", **PLACE)
    assert (done.returncode, done.stderr) == (2, "error: CLUSTER is not set\n")


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["create"], {"PATH": "/usr/bin:/bin"}, "PROJECT is not set"),
        (["--dry_run", "start"], PLACE, "WORKDIR is not set"),
        (["--dry_run", "stop"], PLACE, "command 'stop', allowed: create, install, start"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_run(arguments, environment, message):
    done = run(SLICE, *arguments, **environment)
    assert done.returncode == 2
    assert message in done.stderr


def test_the_page_leads_from_an_empty_project_to_a_resumed_run_with_commands_that_exist():
    page = "\n".join(howto_pages.commands("several-hosts"))
    (first, second) = re.findall(r"^export (.*)$", page, re.MULTILINE)
    settings = dict(setting.split("=", 1) for setting in f"{first} {second}".split())
    commands = re.findall(r"^experiments/tpu/slice.sh (\w+)", page, re.MULTILINE)
    assert commands == ["create", "install", "start", "watch", "resume", "delete"]
    for command in commands:
        done = run(SLICE, "--dry_run", command, PATH="/usr/bin:/bin", **settings)
        assert done.returncode == 0, done.stderr
        assert "scenes --project=my-project --zone=us-west4-a" in done.stdout
    started = run(SLICE, "--dry_run", "start", PATH="/usr/bin:/bin", **settings).stdout
    assert f"--config={settings['CONFIG']}" in started.replace("\\", "")


def test_the_job_of_gpus_trains_on_all_of_its_processes():
    done = run(SLURM, "--dry_run", "--config=c.py", "--workdir=w", PATH="/usr/bin:/bin")
    assert done.stdout.split()[0] == "srun"
    assert "-m experiments.train --cluster --config=c.py --workdir=w" in done.stdout


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", [SLICE, XPK, SLURM], ids=lambda path: path.name)
def test_scripts_are_clean(script):
    done = subprocess.run([SHELLCHECK, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
