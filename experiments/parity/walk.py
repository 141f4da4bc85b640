"""Walk a directory of recorded numbers and judge everything in it.

A golden folder belongs to the module of this package with its name, which has one function,
`cases(folder) -> Iterator[(case name, Iterator[Quantity])]`. Whatever nobody understands, and
whatever raises, fails.
"""

import dataclasses
import importlib
import importlib.util
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from experiments.parity import quantity as quantities
from experiments.parity.quantity import Quantity, Result

IGNORED = ("README.md",)


def walk(directory: pathlib.Path) -> Iterator[Result]:
    """Judge every quantity of every case, folder by folder.

    Args:
      directory: of golden folders, one of them ("fm", "text", ...), or the folder of one case
        inside one ("fm/fm_swiglu_qknorm"). Links count by their own name or by their target's.

    Raises:
      ValueError: no such directory, or nothing in it.
    """
    if not directory.is_dir():
        raise ValueError(f"--cases={directory}: no such directory")
    entries = [p for p in sorted(directory.iterdir()) if p.name not in IGNORED]
    if not entries:
        raise ValueError(f"--cases={directory}: nothing in it")
    if not any(reader_of(entry) for entry in entries):
        for path in (directory.absolute(), directory.resolve()):
            if reader_of(path):
                yield from judge_folder(path)
                return
            if reader_of(path.parent):
                yield from judge_folder(path.parent, only=path.name)
                return
    for entry in entries:
        yield from judge_folder(entry)


def summary(results: Iterable[Result]) -> dict[str, Any]:
    """{"cases", "quantities", "failed"} of all results; failed ones as "case/quantity"."""
    results = list(results)
    return {
        "cases": len({result.case for result in results}),
        "quantities": len(results),
        "failed": [f"{r.case}/{r.quantity}" for r in results if not r.passed],
    }


def run(directory: pathlib.Path) -> int:
    """Print a line per quantity and a last line of JSON; return the exit code."""
    results = []
    for result in walk(directory):
        print(result, flush=True)
        results.append(result)
    line = summary(results)
    print(json.dumps(line))
    return int(bool(line["failed"]))


def reader_of(folder: pathlib.Path) -> Callable[[pathlib.Path], Iterator] | None:
    """Function `cases` of the module that has the folder's name, None where nobody knows it."""
    name = f"experiments.parity.{folder.name}"
    known = folder.is_dir() and folder.name.isidentifier() and importlib.util.find_spec(name)
    return getattr(importlib.import_module(name), "cases", None) if known else None


def judge_folder(folder: pathlib.Path, only: str = "") -> Iterator[Result]:
    """Judge one golden folder, or `only` its case of this name; a folder without cases fails."""
    cases = reader_of(folder)
    if cases is None:
        yield from _judged(folder.name, quantities.unknown(["(folder)"]))
        return
    count = 0
    try:
        for case, found in cases(folder):
            if case == only or not only:
                count += 1
                yield from _judged(f"{folder.name}/{case}" if case else folder.name, found)
    except Exception as error:  # a file that cannot be read fails its folder, not the whole walk
        yield _failure(folder.name, error)
    else:
        if not count:
            yield _failure(folder.name, ValueError(f"no case in {folder / only}"))


def _judged(case: str, found: Iterable[Quantity]) -> Iterator[Result]:
    count = 0
    try:
        for quantity in found:
            count += 1
            yield quantities.judge(case, quantity)
    except Exception as error:  # a case that cannot be computed fails, the others go on
        yield _failure(case, error)
    else:
        if not count:
            empty = quantities.judge(case, Quantity("(nothing)", None, None, understood=False))
            yield dataclasses.replace(empty, note="(no quantity recorded)")


def _failure(case: str, error: Exception) -> Result:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    nan = float("nan")
    return Result(case, "(error)", nan, nan, "-", False, f"({text[:300]})")
