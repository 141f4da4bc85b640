"""Evaluate a run on held-out records: report.html, gallery.png and metrics.json."""

import math
import subprocess
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from etils import epath

from fourm_jax import loading
from fourm_jax.data import datasets as sources
from fourm_jax.data import pipeline
from fourm_jax.evals import any_to_any, galleries, measure, panels, pictures, report
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import phases, run_phases
from fourm_jax.tokenizers.base import Tokenizer
from fourm_jax.train import metrics
from fourm_jax.utils import io, progress, run_folder

NUM_TRAIN_RECORDS = 2_048  # for the constant predictors
NUM_SHEETS = 2  # galleries in gallery.png: from the picture, and from its caption


def run(
    config: ml_collections.ConfigDict, workdir: epath.PathLike, record: phases.Phases
) -> epath.Path:
    """Run the last two phases; return the path of report.html.

    Raises:
      ValueError: the run is not finished.
    """
    config, workdir = run_phases.locate(config, workdir), epath.Path(workdir)
    generator = loading.load_generator(workdir).rolled()
    data = held_out(config, workdir, generator)
    with record.run("evaluate", f"{len(data)} held-out records, one modality from another"):
        tasks = any_to_any.from_one(
            generator, data, config.evaluation.condition, show_progress=True
        )
        for task in progress.track(
            config.evaluation.generated, label="generate", unit="task", name=_title
        ):
            how = [measure.load(name) for name in task.measures]
            tasks |= any_to_any.generated(
                generator, data, task.conditions, task.target, how, truth=task.truth
            )
    page = workdir / "report.html"
    with record.run("report", "drawing galleries and curves"):
        parts = make_parts(config, workdir, generator, data, tasks)
    summary = {**record.summary(), "device": device(), "commit": commit(), "tasks": tasks}
    io.write_json(workdir / "metrics.json", summary)
    seconds = summary["seconds"]
    parts.append(report.table_html("Seconds per phase", ("phase", "s"), list(seconds.items())))
    steps = f"{config.trunk.num_steps:,} steps of {config.trunk.batch_size} samples"
    report.write(
        page,
        title=f"fourm_jax quickstart: any-to-any on {config.trunk.data[0].name}",
        summary=f"Trunk: {steps}, width {config.trunk.model.dim}. {seconds['total']:.0f} s in "
        f"all, {summary['peak_rss_gb']:.1f} GB peak, {summary['device']}, "
        f"commit {summary['commit']}.",
        parts=parts,
    )
    return page


def _title(task: ml_collections.ConfigDict) -> str:
    return f"{'+'.join(task.conditions)}->{task.target}"


def held_out(
    config: ml_collections.ConfigDict, workdir: epath.Path, generator: Generator
) -> any_to_any.HeldOut:
    """Truth and tokens of the held-out records, and training records for the constants."""
    names = sorted({spec.source for spec in generator.model.modalities})
    count = config.evaluation.num_records
    datasets = sources.make_datasets(
        [{**dataset.to_dict(), "mixture": None} for dataset in config.trunk.data], "test"
    )
    batches = pipeline.one_pass(
        datasets, generator.model.modalities, batch_size=count, num_records=count
    )
    tokens, _ = next(batches)
    train = run_phases.open_raw(workdir, "train")
    return any_to_any.HeldOut(
        truth=run_phases.raw_fields(run_phases.open_raw(workdir, "test"), names, count),
        tokens={spec.name: tokens[spec.name] for spec in generator.model.modalities},
        train=run_phases.raw_fields(train, names, NUM_TRAIN_RECORDS),
    )


def make_parts(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    generator: Generator,
    data: any_to_any.HeldOut,
    tasks: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """HTML of metrics, galleries, curves and codebooks."""
    painter = galleries.Painter(generator, data.train)
    parts, sheets = [report.tasks_html(tasks)], []
    for conditions in progress.track(
        config.evaluation.conditions, label="draw", unit="gallery", name=" and ".join
    ):
        shown = galleries.any_to_any_gallery(
            generator, data, painter, conditions, num_records=config.evaluation.num_shown
        )
        parts.append(report.gallery_html(shown))
        sheets.append(galleries.sheet(shown))
    io.write_bytes(workdir / "gallery.png", pictures.png(panels.stacked(sheets[:NUM_SHEETS])))
    parts += curves(workdir)
    parts.append(codebooks(workdir, generator))
    return parts


def curves(workdir: epath.Path) -> list[str]:
    """HTML of loss and accuracy of the trunk over its steps."""
    history = metrics.read_history(workdir / run_folder.TRUNK)
    parts = []
    for metric, note in (
        ("loss", "Cross-entropy in nats per target token under random masks (training batches)."),
        ("accuracy", "Share of target tokens predicted exactly."),
    ):
        figure = report.curves(series(history, f"{metric}/"), metric)
        parts.append(report.figure_html(f"Training {metric} per modality", note, figure))
    return parts


def series(history: list[dict[str, Any]], prefix: str) -> dict[str, tuple[list, list]]:
    """{"tok_rgb": (steps, values), ...} of the logged metrics that start with `prefix`."""
    found: dict[str, tuple[list, list]] = {}
    for point in history:
        for name, value in point.items():
            if name.startswith(prefix) and math.isfinite(value):
                steps, values = found.setdefault(name.removeprefix(prefix), ([], []))
                steps.append(point["step"])
                values.append(value)
    return found


def codebooks(workdir: epath.Path, generator: Generator) -> str:
    """Table of tokenizers and curves of their codebook usage."""
    rows, usage = [], {}
    for name, tokenizer in generator.tokenizers.items():
        if not isinstance(tokenizer, Tokenizer):  # of texts: it has no codebook
            continue
        card = tokenizer.card
        known = dict(card.reconstruction)
        shown = [known.pop(key, math.nan) for key in ("codebook_usage", "perplexity")]
        errors = ", ".join(
            f"{key} {report.number(value)}" for key, value in known.items() if "loss" not in key
        )
        codes = f"{card.codes_per_position} × {card.vocab_size}"
        rows.append((name, codes, *shown, errors, card.training_steps))
        history = metrics.read_history(workdir / "tokenizer_runs" / name)
        points = [(p["step"], p["codebook_usage"]) for p in history if "codebook_usage" in p]
        if points:
            steps, shares = zip(*points, strict=True)
            usage[name] = (steps, shares)
    table = report.table_html(
        "Tokenizers",
        ("tokenizer", "codes", "usage", "perplexity", "held-out reconstruction", "steps"),
        rows,
    )
    if not usage:
        return table
    note = "Share of the codes that a training batch uses; dead codes are replaced as it goes."
    return table + report.figure_html("Codebook usage", note, report.curves(usage, "usage"))


def device() -> str:
    """Name and number of the devices in use."""
    devices = jax.devices()
    return f"{len(devices)} × {devices[0].device_kind}"


def commit() -> str:
    """Short hash of the checked-out commit, "+" for local changes; "unknown" outside of git."""
    here = epath.Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip() or "unknown"
