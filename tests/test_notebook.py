"""The notebook, from top to bottom, on a toy run of the quickstart (`make test-notebook`)."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests import test_end_to_end

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOK = ROOT / "experiments/colabs/any_to_any.ipynb"


def cells() -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_every_cell_of_the_notebook_is_valid_code_without_stored_output():
    for number, cell in enumerate(cells()):
        compile(cell, f"cell {number}", "exec")
    assert all(not cell.get("outputs") for cell in json.loads(NOTEBOOK.read_text())["cells"])


@pytest.mark.notebook
def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    command = [*test_end_to_end.QUICKSTART, f"--workdir={tmp_path}"]
    made = test_end_to_end.run([*command, "--config=configs/quickstart.py:runlocal"])
    assert made.returncode == 0, made.stderr
    done = subprocess.run(
        [sys.executable, "-c", "\n\n".join(cells())],
        cwd=ROOT,
        env={**test_end_to_end.environment(), "FOURM_JAX_RUN": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
