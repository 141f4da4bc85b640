"""An output of a wrong kind is refused in one line, before a model is looked for."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
GENERATE = ("generate", "--source={folder}/none")
SEARCH = ("search", "--index={folder}/none", "--query=caption=a red cone")


@pytest.mark.parametrize(
    ("command", "output", "message"),
    [
        (GENERATE, "--output={folder}/a.jpg", "a.jpg, allowed: NAME.png or a folder"),
        (GENERATE, "--output={folder}/a.PNG", "a.PNG, allowed: NAME.png or a folder"),
        (GENERATE, "--output={folder}/no/a.png", "expected NAME.png in a folder that exists"),
        (GENERATE, "--animation={folder}/a.mp4", "a.mp4, allowed: NAME.webp or NAME.gif"),
        (SEARCH, "--output={folder}/a.jpg", "a.jpg, allowed: NAME.png"),
        (SEARCH, "--output={folder}/a", "/a, allowed: NAME.png"),
    ],
)
def test_an_output_of_a_wrong_kind_is_refused_and_nothing_is_written(
    command, output, message, tmp_path
):
    name, *arguments = command
    given = [one.format(folder=tmp_path) for one in (*arguments, output)]
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *given],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {given[-1].partition('=')[0]}=")
    assert done.stderr.rstrip().endswith(message)
    assert not list(tmp_path.iterdir())
