"""The pages on fine-tuning and on modalities: every command of theirs runs (`make test-howto`).

Each with `runlocal`: tiny models, a handful of steps, in folders of the test. The recipes of the
published models run in `tests/test_finetune.py`.
"""

import pathlib
import re
import shlex
import sys

import pytest

from tests import howto_pages, test_end_to_end

PAGES = ("fine-tune", "add-a-modality")
COMMANDS = howto_pages.commands(*PAGES)
ONE_CASE = ["--tasks=cls", "--variants=scratch,full", "--labels=64", "--seeds=1"]
PUBLISHED = re.compile(r"finetune/(fourm|divae|published)\.py")


def local(command: str, folder: pathlib.Path) -> list[str]:
    """The command in miniature, on folders below `folder`."""
    parts = shlex.split(command.replace("runs/", f"{folder}/"))
    assert parts[:2] == ["python", "-m"]
    if parts[2] == "experiments.transfer_table":
        kept = [part for part in parts[1:] if not part.startswith(("--labels", "--seeds"))]
        return [sys.executable, *kept, *ONE_CASE, "--options=runlocal"]
    parts = [f"{p},runlocal" if p.startswith("--config=") else p for p in parts]
    return [sys.executable, *parts[1:]]


def test_the_pages_have_commands_and_each_has_its_own_folder():
    folders = re.findall(r"--workdir=(\S+)", "\n".join(COMMANDS))
    assert len(folders) == len(set(folders)) == len(COMMANDS) > 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy_quickstart):
    """`runs/`, with what the commands start from in it."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "quickstart").symlink_to(toy_quickstart)
    (folder / "digits").symlink_to(toy_quickstart)  # the same trunk, to start from
    return folder


@pytest.mark.howto
@pytest.mark.parametrize(
    "command",
    [command for command in COMMANDS if not PUBLISHED.search(command)],
    ids=lambda command: command.split("runs/")[-1],
)
def test_a_command_of_the_pages_runs(command, folder):
    done = test_end_to_end.run(local(command, folder))
    assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
