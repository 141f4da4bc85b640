"""The notebooks, from top to bottom, on a toy run of the quickstart (`make test-notebook`)."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests import test_end_to_end

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "experiments/colabs").glob("*.ipynb"))


def cells(path: pathlib.Path) -> list[str]:
    notebook = json.loads(path.read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_of_a_notebook_is_valid_code_without_stored_output(path):
    for number, cell in enumerate(cells(path)):
        compile(cell, f"cell {number}", "exec")
    assert all(not cell.get("outputs") for cell in json.loads(path.read_text())["cells"])


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, toy_quickstart):
    done = subprocess.run(
        [sys.executable, "-c", "\n\n".join(cells(path))],
        cwd=ROOT,
        env={
            **test_end_to_end.environment(),
            "FOURM_JAX_RUN": str(toy_quickstart),
            "FOURM_JAX_STEPS": "20",
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
