"""The page on generation: every command of it runs (`make test-howto`).

On the toy run of the quickstart and a picture of noise, in a folder of the test. What needs the
network or serves a page is left out: its flags are checked by test_docs.py.
"""

import pathlib
import re
import shlex
import sys

import numpy as np
import pytest
from PIL import Image

from tests import howto_pages, test_end_to_end

FILE = re.compile(r"=([\w-]+\.(?:png|jpg|tsv|webp))")
NOT_RUN = ("pip install", "fourm demo", "EPFL-VILAB/")
COMMANDS = [
    line for line in howto_pages.commands("generate") if not any(part in line for part in NOT_RUN)
]


def local(command: str, folder: pathlib.Path) -> list[str]:
    """The command in miniature, its files and runs below `folder`."""
    placed = FILE.sub(rf"={folder}/\1", command.replace("runs/", f"{folder}/"))
    program, name, *rest = shlex.split(placed)
    assert program == "fourm"
    if name == "quickstart":
        rest = [f"{one}:runlocal" if one.startswith("--config=") else one for one in rest]
    if name == "showcase":
        rest.append("--num_records=2")
    return [sys.executable, "-m", f"experiments.{name}", *rest]


def test_the_page_has_commands_and_each_writes_a_place_of_its_own():
    places = re.findall(r"--(?:output|workdir)=(\S+)", "\n".join(COMMANDS))
    assert len(places) == len(set(places)) + 1 == len(COMMANDS) > 8  # the showcase stands twice


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy_quickstart):
    """`runs/`, with the quickstart in it, and the files that the commands read."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "quickstart").symlink_to(toy_quickstart)
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for name in ("photo.jpg", "photo.png"):
        Image.fromarray(picture).save(folder / name)
    (folder / "captions.tsv").write_text("caption\na red cone\na large blue box\n")
    return folder


@pytest.mark.howto
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split("=")[-1])
def test_a_command_of_the_page_runs(command, folder):
    done = test_end_to_end.run(local(command, folder))
    assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
