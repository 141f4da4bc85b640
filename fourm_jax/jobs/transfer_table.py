"""Many transfers side by side: a table of their measures, and a curve over the number of labels.

Every case is a training in a folder of its own, which is skipped when it is finished, so that the
same call continues.
"""

import collections
import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import ml_collections
from etils import epath

from fourm_jax.jobs import transfer_eval
from fourm_jax.models import trained, weights
from fourm_jax.train import loop
from fourm_jax.utils import folder_lock, io, progress

# What a curve shows: the first of these that there is.
MEASURES = ("accuracy", "miou", "abs_rel", "exact", "mae")
TABLE, PICTURE = "table.json", "curves.png"
KEY = ("task", "variant", "labels")  # what a row is of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One training.

    Attributes:
      task, variant: what is learned and from what, names of the table.
      num_labels, seed: of the labelled records.
      config: of the training.
    """

    task: str
    variant: str
    num_labels: int
    seed: int
    config: ml_collections.ConfigDict

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.task}-{self.variant}-{self.num_labels}-{self.seed}"


def run(
    cases: Sequence[Case],
    workdir: epath.PathLike,
    read_weights: weights.Read = trained.read_weights,
) -> list[dict[str, Any]]:
    """Train all cases; return one row per task, variant and number of labels.

    The table in the work directory is written anew after every case, the picture at the end; both
    hold the rows of earlier calls beside these. A row holds {"task", "variant", "labels", "seeds",
    measure: mean, "measure±": spread}.

    Raises:
      ValueError: another process writes this table.
    """
    workdir = epath.Path(workdir).expanduser()
    with folder_lock.hold(workdir):
        return _train(cases, workdir, read_weights)


def _train(
    cases: Sequence[Case], workdir: epath.Path, read_weights: weights.Read
) -> list[dict[str, Any]]:
    earlier = io.read_json(workdir / TABLE)["rows"] if (workdir / TABLE).exists() else []
    known = {_key(row): row for row in earlier}
    found: dict[tuple[str, str, int], list[dict[str, float]]] = collections.defaultdict(list)
    for case in progress.track(cases, label="transfer", unit="training", name=lambda c: c.name):
        result = loop.train(
            case.config,
            workdir / case.name,
            show_progress=False,
            evaluators=(transfer_eval.make_evaluator(case.config),),
            read_weights=read_weights,
        )
        measures = {
            name.removeprefix("eval/"): value
            for name, value in result.metrics.items()
            if name.startswith("eval/")
        }
        key = (case.task, case.variant, case.num_labels)
        found[key].append(measures)
        # A continued call meets the seeds one by one, of which the row may know more.
        if len(found[key]) >= known.get(key, {}).get("seeds", 0):
            known[key] = {**dict(zip(KEY, key, strict=True)), **summary(found[key])}
            io.write_json(workdir / TABLE, {"rows": list(known.values())})
    draw(list(known.values()), workdir / PICTURE)
    return [known[key] for key in found]


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    task, variant, labels = (row[name] for name in KEY)
    return task, variant, labels


def summary(measures: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Mean over the seeds, and half the distance between the best and the worst of them."""
    row: dict[str, Any] = {"seeds": len(measures)}
    for name in measures[0]:
        values = [one[name] for one in measures]
        row[name] = statistics.mean(values)
        row[f"{name}±"] = (max(values) - min(values)) / 2
    return row


def draw(rows: Sequence[dict[str, Any]], path: epath.Path) -> None:
    """One panel per task: its first measure over the number of labels, a line per variant."""
    from matplotlib import figure, lines

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    colours = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(r["variant"] for r in rows))}
    page = figure.Figure(figsize=(4 * len(tasks), 3.5), layout="constrained")
    for number, task in enumerate(tasks):
        axes = page.add_subplot(1, len(tasks), number + 1)
        own = [row for row in rows if row["task"] == task]
        measure = next(name for name in MEASURES if name in own[0])
        for variant in dict.fromkeys(row["variant"] for row in own):
            line = sorted(
                (row["labels"], row[measure], row[f"{measure}±"])
                for row in own
                if row["variant"] == variant
            )
            labels, values, spread = zip(*line, strict=True)
            axes.errorbar(
                labels, values, yerr=spread, marker="o", capsize=2, color=colours[variant]
            )
        sizes = sorted({row["labels"] for row in own})
        axes.set(title=task, xlabel="labels", ylabel=measure, xscale="log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
    # outside of the panels, where it covers no point
    handles = [
        lines.Line2D([], [], marker="o", color=colour, label=variant)
        for variant, colour in colours.items()
    ]
    page.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    with path.open("wb") as file:
        page.savefig(file, format="png", dpi=120)
