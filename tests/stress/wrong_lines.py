"""Runs wrong command lines and judges how they end.

    python -m tests.stress.wrong_lines [--only=train]

runs all of them and prints a table: tried, refused in one line, taken, escaped (a traceback, or no
line that says what is wrong), hung. The exit code is 1 if anything escaped or hung.
"""

import argparse
import collections
import dataclasses
import json
import pathlib
import shlex
import tempfile
import time
import zlib
from collections.abc import Sequence

from tests.stress import children, wrong_files, wrong_input
from tests.stress.wrong_input import TOY, Line

LIMIT = 90.0  # seconds for one line on a busy machine
OUTCOMES = ("refused", "taken", "escaped", "hung")


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a line ended: one of `OUTCOMES`, and what it said last."""

    outcome: str
    said: str


def run(line: Line, nursery: children.Nursery, base: pathlib.Path, run: pathlib.Path) -> Ending:
    """Run one line and judge how it ends."""
    new = base / f"new{zlib.crc32(repr(line).encode())}"
    filled = line.arguments
    for name, path in {"base": base, "run": run, "new": new}.items():
        filled = filled.replace(f"{{{name}}}", str(path))
    child = nursery.command(line.command, shlex.split(filled), dict(line.environment))
    until = time.monotonic() + LIMIT
    while not child.has_ended():
        if time.monotonic() > until:
            child.kill()
            return Ending("hung", child.log[-300:])
        time.sleep(0.01)
    return judge(child.code(), child.log)


def judge(code: int, log: str) -> Ending:
    """One of `OUTCOMES` for an exit code and what the command printed."""
    lines = [text for text in log.splitlines() if text.strip()]
    last = lines[-1] if lines else ""
    if "Traceback" in log or code < 0:
        return Ending("escaped", " // ".join(lines[-3:]))
    if code == 0:
        return Ending("taken", last)
    errors = [text for text in lines if text.startswith("error: ")]
    if code == 1 and len(errors) == 1 and errors[0].removeprefix("error: ").strip():
        return Ending("refused", errors[0])
    return Ending("escaped", f"code {code}, {len(errors)} lines of errors: {last}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run them all; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of the lines")
    parser.add_argument("--run", type=pathlib.Path, default=None, help="a finished run, to read")
    options = parser.parse_args(argv)
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        (base / "files").mkdir()
        wrong_files.make(base / "files")
        nursery = children.Nursery(base)
        finished = options.run or make_run(nursery, base / "run")
        for line in wrong_input.lines():
            if options.only not in str(line):
                continue
            ending = run(line, nursery, base / "files", finished)
            counts[ending.outcome] += 1
            is_right = ending.outcome == ("taken" if line.is_taken else "refused")
            mark = "" if is_right else "WRONG "
            print(f"{mark}{ending.outcome}: {line}\n    {ending.said[:230]}", flush=True)
        nursery.close()
    print("tried", counts.total(), json.dumps({name: counts[name] for name in OUTCOMES}))
    return int(bool(counts["escaped"] or counts["hung"]))


def make_run(nursery: children.Nursery, workdir: pathlib.Path) -> pathlib.Path:
    """A finished run of the smallest quickstart."""
    child = nursery.command("quickstart", [TOY, f"--workdir={workdir}"], {})
    while not child.has_ended():
        time.sleep(0.1)
    assert child.code() == 0, child.log
    return workdir


if __name__ == "__main__":
    raise SystemExit(main())
