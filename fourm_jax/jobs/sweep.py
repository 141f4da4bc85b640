"""A config at many points: one folder and one training each, a table and a plot at the end."""

import dataclasses
import importlib.util
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import ml_collections
from etils import epath

from fourm_jax.train import metrics
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import io, progress

TABLE, PLOT, LOG = "table.md", "losses.png", "log.txt"
POLL_SECONDS = 0.2
NUM_COLOURS, DASHES = 10, ("-", "--", ":", "-.")  # of matplotlib


@dataclasses.dataclass(frozen=True)
class Point:
    """One training: its folder, and the config keys in which it differs."""

    name: str
    changes: Mapping[str, Any]


def points(config: str, base: ml_collections.ConfigDict) -> list[Point]:
    """What the function `sweep` of a config file lists, checked against its config.

    `sweep()` returns a list of {dotted config key: value}; the empty one is the config itself.
    Beside it, `measures()` may name the logged values that the table compares.

    Args:
      config: "file.py:argument", as for --config.
      base: the config that it gives.

    Raises:
      ValueError: no such function, an unknown key, a value of another type, or two equal points.
    """
    module, file = _module(config), config.partition(":")[0]
    if not callable(getattr(module, "sweep", None)):
        raise ValueError(f"{file} has no function sweep(): it lists the points, one dict each")
    found = [Point(_name(changes), changes) for changes in module.sweep()]
    for point in found:
        config_lib.override(base, point.changes)
    names = [point.name for point in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{file}: two points are called {twice[0]!r}")
    return found


def measures(config: str) -> tuple[str, ...]:
    """Names of the logged values that the table of a config's sweep shows, beside step and loss."""
    named = getattr(_module(config), "measures", None)
    return tuple(named()) if named else ("eval/loss",)


def _module(config: str) -> ModuleType:
    """The file of "file.py:argument", from which a config was read."""
    file, _, _ = config.partition(":")
    spec = importlib.util.spec_from_file_location(epath.Path(file).stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(config: str, point: Point, workdir: epath.Path, common: Mapping[str, Any]) -> list[str]:
    """The training of one point; `common` are keys that a command line sets for all of them.

    Raises:
      ValueError: a key that the points differ in.
    """
    for key in common:
        if key in point.changes:
            raise ValueError(f"--config.{key}={_written(common[key])}: the sweep sets this key")
    changes = {**point.changes, **common}
    start = [sys.executable, "-m", "experiments.train", f"--config={config}"]
    keys = [f"--config.{key}={_written(value)}" for key, value in changes.items()]
    return [*start, *keys, f"--workdir={workdir / point.name}"]


def run(commands: Mapping[str, Sequence[str]], workdir: epath.Path, *, max_parallel: int) -> int:
    """Run the trainings, so many at once; return how many failed. Finished ones end at once.

    The output of each is in its folder, in log.txt.
    """
    waiting, num_failed = dict(commands), 0
    running: dict[str, subprocess.Popen[bytes]] = {}
    bar = progress.Bar(len(commands), label="sweep", unit="run")
    try:
        while waiting or running:
            while waiting and len(running) < max_parallel:
                name = next(iter(waiting))
                folder = workdir / name
                folder.mkdir(parents=True, exist_ok=True)
                with (folder / LOG).open("a") as log:
                    running[name] = subprocess.Popen(
                        waiting.pop(name), stdout=log, stderr=subprocess.STDOUT
                    )
            for name, process in list(running.items()):
                if process.poll() is not None:
                    num_failed += bool(running.pop(name).returncode)
                    bar.update(len(commands) - len(waiting) - len(running))
                    if process.returncode:
                        log = workdir / name / LOG
                        progress.announce(f"{name} ended with {process.returncode}, see {log}")
            time.sleep(POLL_SECONDS)
    finally:
        for process in running.values():  # stopped on request: they save and leave
            process.terminate()
        for process in running.values():
            process.wait()
        bar.close()
    return num_failed


def write_results(
    found: Sequence[Point], workdir: epath.Path, shown: Sequence[str] = ("eval/loss",)
) -> epath.Path:
    """Write the table and the plot of what has been logged so far; return the table's path.

    Args:
      shown: names of values in the table, beside step and loss.
    """
    histories = {point.name: metrics.read_history(workdir / point.name) for point in found}
    keys = list(dict.fromkeys(itertools.chain.from_iterable(point.changes for point in found)))
    columns = [*keys, "step", "loss", *shown]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for point in found:
        last = {k: v for one in histories[point.name] for k, v in one.items()}
        values = [_written(point.changes[key]) if key in point.changes else "" for key in keys]
        measured = [last.get("step", 0), *(_shown(last.get(k)) for k in ("loss", *shown))]
        lines.append(f"| {' | '.join(map(str, [*values, *measured]))} |")
    io.write_text(workdir / TABLE, "\n".join(lines) + "\n")
    _plot(histories, workdir / PLOT)
    return workdir / TABLE


def _plot(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: epath.Path) -> None:
    from matplotlib import figure

    drawing = figure.Figure(figsize=(8, 5), layout="constrained")
    axes = drawing.subplots()
    for number, (name, history) in enumerate(histories.items()):
        logged = [point for point in history if "loss" in point]
        steps, losses = [p["step"] for p in logged], [p["loss"] for p in logged]
        axes.plot(steps, losses, label=name, **line_style(number))
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.legend(fontsize="small")
    with path.open("wb") as file:
        drawing.savefig(file, format="png", dpi=120)


def line_style(number: int) -> dict[str, Any]:
    """Colour and dashes of a line, of which 40 differ."""
    dashes, colour = divmod(number, NUM_COLOURS)
    return {"color": f"C{colour}", "linestyle": DASHES[dashes % len(DASHES)]}


def _name(changes: Mapping[str, Any]) -> str:
    """Folder of a point: last parts of its keys and values, e.g. "lr=0.001,seed=1"."""
    parts = [f"{key.rpartition('.')[2]}={_written(value)}" for key, value in changes.items()]
    name = ",".join(parts) or "base"
    return "".join(letter if letter.isalnum() or letter in "=,.-_" else "_" for letter in name)


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _shown(value: float | None) -> str:
    return f"{value:.4f}" if value is not None and math.isfinite(value) else ""
