"""Several runs side by side: numbers of evaluations, curves of trainings, in one page.

Two numbers differ for sure where their bootstrap intervals share nothing.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from fourm_jax.evals import bootstrap, report
from fourm_jax.jobs import quickstart_report
from fourm_jax.train import metrics
from fourm_jax.utils import io, run_folder

METRICS, PAGE = "metrics.json", "compare.html"
AS_A_RUN = "any_to_any/"  # tasks of this evaluator have no such prefix in a run's own metrics.json
FLAGS = ("--output", "-output", "--verbosity", "-verbosity", "-v")  # those that take a value
LAST = ("loss", "accuracy")  # of a training, whose last value is a row of the table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number:
    """One number of one run; direction and interval of the bootstrap where they are known."""

    value: float
    higher_is_better: bool | None = None
    interval: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """What a folder holds.

    Attributes:
      name: of the folder, short.
      numbers: {"task metric": number} of metrics.json, and last values of the training.
      history: log points of the training.
    """

    name: str
    numbers: Mapping[str, Number]
    history: list[dict[str, Any]]


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Flags and folders of a command line."""
    flags: list[str] = []
    folders: list[str] = []
    for argument in arguments:
        belongs = bool(flags) and flags[-1] in FLAGS  # and the next one is its value
        (flags if argument.startswith("-") or belongs else folders).append(argument)
    return flags, folders


def read(folders: Sequence[epath.PathLike]) -> list[Compared]:
    """Read evaluations (metrics.json) and trainings (metrics.jsonl), one or both per folder.

    Raises:
      ValueError: fewer than two folders, or one that holds neither.
    """
    if len(folders) < 2:
        raise ValueError(f"{len(folders)} runs, at least two are compared")
    places = [epath.Path(folder).expanduser() for folder in folders]
    return [_read(place, name) for place, name in zip(places, _names(places), strict=True)]


def _names(places: Sequence[epath.Path]) -> list[str]:
    """The last part of each path, as many parts as it takes to tell them apart."""
    for count in range(1, 1 + max(len(place.parts) for place in places)):
        names = ["/".join(place.parts[-count:]) for place in places]
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {place.name}" for number, place in enumerate(places, 1)]


def _read(folder: epath.Path, name: str) -> Compared:
    trunk = folder / run_folder.TRUNK if (folder / run_folder.TRUNK).is_dir() else folder
    history = metrics.read_history(trunk) if trunk.is_dir() else []
    numbers: dict[str, Number] = {}
    if (folder / METRICS).exists():
        tasks = io.read_json(folder / METRICS).get("tasks", {})
        for task, first in tasks.items():
            for entry in (first, *first.get("also", ())):
                numbers[f"{task.removeprefix(AS_A_RUN)} {entry['metric']}"] = Number(
                    value=math.nan if entry["model"] is None else entry["model"],
                    higher_is_better=entry["higher_is_better"],
                    interval=_interval(entry.get("interval")),
                )
    last = {key: value for point in history for key, value in point.items()}
    for metric, value in last.items():
        if metric in LAST:
            numbers[f"training {metric}"] = Number(value=value, higher_is_better=metric != "loss")
        elif metric.startswith("eval/"):
            numbers[metric] = Number(value=value)
    if not numbers:
        raise ValueError(f"{folder} holds neither {METRICS} nor {metrics.HISTORY} of a run")
    return Compared(name=name, numbers=numbers, history=history)


def _interval(pair: Any) -> tuple[float, float] | None:
    return None if not pair or None in pair else (float(pair[0]), float(pair[1]))


def verdict(number: Number | None, first: Number | None) -> str:
    """How a number stands to that of the first run: "better", "worse", or "" where not for sure."""
    if number is None or first is None or not number.interval or not first.interval:
        return ""
    if bootstrap.overlap(number.interval, first.interval):
        return ""
    return "better" if (number.value > first.value) == number.higher_is_better else "worse"


def rows(runs: Sequence[Compared]) -> list[tuple[str, ...]]:
    """The table: one row per number that any run has; marks compare with the first run."""
    names = list(dict.fromkeys(name for run in runs for name in run.numbers))
    table = []
    for name in names:
        first = runs[0].numbers.get(name)
        cells = [_cell(run.numbers.get(name), first) for run in runs]
        known = next(run.numbers[name] for run in runs if name in run.numbers)
        arrow = {True: " ↑", False: " ↓", None: ""}[known.higher_is_better]
        table.append((f"{name}{arrow}", *cells))
    return table


def _cell(number: Number | None, first: Number | None) -> str:
    if number is None:
        return "–"
    shown = report.number(number.value)
    if number.interval:
        low, high = map(report.number, number.interval)
        shown += f" [{low}, {high}]"
    mark = verdict(number, first) if number is not first else ""
    return f"{shown} {mark}".strip()


def text(runs: Sequence[Compared]) -> str:
    """The table for a terminal."""
    table = [("", *(run.name for run in runs)), *rows(runs)]
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def write(runs: Sequence[Compared], output: epath.PathLike) -> epath.Path:
    """Write compare.html; return its path."""
    output = epath.Path(output).expanduser()
    output.mkdir(parents=True, exist_ok=True)
    parts = [report.table_html("Numbers", ("", *(run.name for run in runs)), rows(runs))]
    for metric in LAST:
        series = {run.name: quickstart_report.series(run.history, metric) for run in runs}
        shown = {name: own[""] for name, own in series.items() if "" in own}
        if shown:
            note = "On training batches, at the log points of each run."
            figure = report.curves(shown, metric)
            parts.append(report.figure_html(f"Training {metric}", note, figure))
    report.write(
        output / PAGE,
        title=f"{len(runs)} runs side by side",
        summary="In brackets: the bootstrap interval of 95 %. A number is marked better or worse "
        f"where its interval shares nothing with that of {runs[0].name}.",
        parts=parts,
    )
    return output / PAGE
