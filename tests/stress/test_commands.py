"""Commands, as they are started, whose reader hangs in a thread of a library."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.stress.children import ROOT

# The reader hangs after some batches, as with a file system that is gone.
HANGING = """
import runpy, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a script
from fourm_jax.data import pipeline
read = pipeline._Read.__call__
def hang(self, number):
    while number > 5:
        print("stuck", flush=True)
        time.sleep(1000)
    return read(self, number)
pipeline._Read.__call__ = hang
sys.argv = ["train", *sys.argv[1:]]
runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
"""


CONFIG = """
from tests.train import tiny
def get_config(arg=None):
    return tiny.tokenizer(num_steps=50)
"""


@pytest.mark.stress
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_command_whose_reader_hangs_saves_and_ends_with_its_own_code(tmp_path, number):
    config = tmp_path / "config.py"
    config.write_text(CONFIG)
    command = [
        *(sys.executable, "-c", HANGING),
        f"--config={config}",
        f"--workdir={tmp_path / 'w'}",
    ]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    seen = ""
    while "first step" not in seen or "stuck" not in seen:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    time.sleep(5)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert [path.name for path in (tmp_path / "w" / "checkpoints").iterdir()] == ["6"]
