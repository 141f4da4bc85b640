"""The pages on evaluation and on search: every command of theirs runs (`make test-howto`).

In miniature: on the toy run of the quickstart, with a few records, in folders of the test.
"""

import pathlib
import re
import shlex
import sys

import pytest

from tests import test_docs, test_end_to_end

PAGES = ("evaluate", "embed-and-search")
FEW = "--num_records=8"


def commands() -> list[str]:
    """The commands of the pages, those in their code blocks, in their order."""
    found = []
    for page in PAGES:
        text = (test_docs.ROOT / f"docs/howto/{page}.md").read_text()
        blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
        found += [line for line in blocks.replace("\\\n", " ").splitlines() if line.strip()]
    return found


def local(command: str, folder: pathlib.Path) -> list[str]:
    """The command in miniature, on folders below `folder`."""
    parts = shlex.split(command.replace("runs/", f"{folder}/"))
    assert parts[:2] == ["python", "-m"]
    takes_records = parts[2] in ("experiments.evaluate", "experiments.embed")
    return [sys.executable, *parts[1:], *([FEW] if takes_records else [])]


def test_the_pages_have_commands_and_each_writes_a_place_of_its_own():
    places = re.findall(r"--output=(\S+)", "\n".join(commands()))
    assert len(places) == len(set(places)) == len(commands()) > 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy_quickstart):
    """`runs/`, with the quickstart in it."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "quickstart").symlink_to(toy_quickstart)
    return folder


@pytest.mark.howto
@pytest.mark.parametrize("command", commands(), ids=lambda command: command.split("=")[-1])
def test_a_command_of_the_pages_runs(command, folder):
    done = test_end_to_end.run(local(command, folder))
    assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    place = pathlib.Path(re.findall(r"--output=(\S+)", " ".join(local(command, folder)))[0])
    assert place.stat().st_size > 0
