"""The pages on evaluation and on search: every command of theirs runs (`make test-howto`).

In miniature: on the toy run of the quickstart, with a few records, in folders of the test.
"""

import pathlib
import re
import shlex
import sys

import pytest

from tests import howto_pages, test_end_to_end

PAGES = ("evaluate", "embed-and-search")
COMMANDS = howto_pages.commands(*PAGES)
FEW = "--num_records=8"
PLACE = r"--(?:output|workdir)=(\S+)"


def local(command: str, folder: pathlib.Path) -> list[str]:
    """The command in miniature, on folders below `folder`."""
    command = command.replace("--depth=2", "--depth=1")  # the toy encoder has one block
    command = command.replace("size=nano", "size=nano,runlocal").replace("every=500", "every=2")
    parts = shlex.split(command.replace("runs/", f"{folder}/"))
    assert parts[:2] == ["python", "-m"]
    takes_records = parts[2] in ("experiments.evaluate", "experiments.embed")
    return [sys.executable, *parts[1:], *([FEW] if takes_records else [])]


def test_the_pages_have_commands_and_each_writes_a_place_of_its_own():
    places = re.findall(PLACE, "\n".join(COMMANDS))
    assert len(places) == len(set(places)) == len(COMMANDS) > 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy_quickstart):
    """`runs/`, with the quickstart in it."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "quickstart").symlink_to(toy_quickstart)
    return folder


@pytest.mark.howto
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split("=")[-1])
def test_a_command_of_the_pages_runs(command, folder):
    done = test_end_to_end.run(local(command, folder))
    assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    place = pathlib.Path(re.findall(PLACE, " ".join(local(command, folder)))[0])
    assert place.stat().st_size > 0
