"""Wrong command lines end in one line that says what is wrong; `make test` takes a few of them."""

import pytest

from tests.stress import wrong_files, wrong_input, wrong_lines

# One of each kind that ended in a traceback once.
USUAL = (
    "train --config={base}/raises.py",
    "train --config={base}/none.py",
    "train --config={base}/empty.py",
    "train --config=scenes:size=nano,runlocal --workdir= ",
    "--config.optimizer.b1=2.0",
    "--config.seed=1180591620717411303424",
    "train --config=quickstart:runlocal",
    "quickstart --config.trunk=3",
)


def is_usual(line):
    return any(part in f"{line.command} {line.arguments} " for part in USUAL)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    wrong_files.make(folder)
    return folder


@pytest.fixture(scope="module")
def finished(nursery, tmp_path_factory):
    return wrong_lines.make_run(nursery, tmp_path_factory.mktemp("run") / "w")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, id=str(line), marks=() if is_usual(line) else pytest.mark.stress)
        for line in wrong_input.lines()
    ],
)
def test_a_wrong_line_ends_in_one_line_that_says_so(line, nursery, base, request):
    run = request.getfixturevalue("finished") if "{run}" in line.arguments else base
    ending = wrong_lines.run(line, nursery, base, run)
    assert ending.outcome == ("taken" if line.is_taken else "refused"), ending.said


def test_what_escapes_is_told_from_what_is_refused():
    judged = {
        (1, "error: no such folder"): "refused",
        (0, "done"): "taken",
        (1, "Traceback (most recent call last):\nKeyError: 3"): "escaped",
        (1, "error: a\nerror: b"): "escaped",
        (1, "error: "): "escaped",
        (3, ""): "escaped",
        (-11, ""): "escaped",
    }
    for (code, log), outcome in judged.items():
        assert wrong_lines.judge(code, log).outcome == outcome, log
