"""Evaluate a model on records: metrics.json, and a report of tables, pictures, bars and curves."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from fourm_jax.data.datasets import Dataset
from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.evals import evaluator, report
from fourm_jax.evals.evaluator import Context, Evaluator, Findings
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import eval_data, output_folder, quickstart_report
from fourm_jax.jobs.eval_data import EvalData
from fourm_jax.train import announcements, metrics
from fourm_jax.utils import errors, io, progress, run_folder

METRICS, REPORT = "metrics.json", "report.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One evaluation, checked.

    Attributes:
      source: what holds the model, for people and for curves of its training.
      context: model and records.
      evaluators: by name.
      split: of the records.
      settings: what was asked for, plain values for metrics.json.
    """

    source: str
    context: Context
    evaluators: Mapping[str, Evaluator]
    split: str
    settings: Mapping[str, Any]


def typed(names: Sequence[str], options: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{name: options} of a command line: names, and texts NAME.OPTION=VALUE.

    Raises:
      ValueError: an option of an evaluator that is not asked for, or without a value.
    """
    evals: dict[str, dict[str, Any]] = {name: {} for name in names if name}
    for text in options:
        key, equals, value = text.partition("=")
        name, dot, option = key.partition(".")
        if not (equals and dot):
            raise ValueError(f"--option={text}, expected NAME.OPTION=VALUE")
        if name not in evals:
            raise ValueError(errors.unknown_value("evaluator of --option", name, evals))
        evals[name][option] = value
    return evals


def check_output(output: epath.PathLike) -> None:
    """Refuse a folder of other things, such as a run; say that an evaluation is replaced.

    Raises:
      ValueError: names the first thing that is there, or its numbers are those of a run.
    """
    output_folder.check(output, METRICS, "no evaluation")
    path = epath.Path(output).expanduser() / METRICS
    if not path.exists():
        return
    there = io.read_json(path)
    if not isinstance(there, dict) or "evals" not in there:
        raise ValueError(
            f"{path} is of a run, not of an evaluation: it would be lost; use another --output"
        )
    announcements.say(f"{path}: an earlier evaluation ({', '.join(there['evals'])}) is replaced")


def prepare(
    source: epath.PathLike,
    generator: Generator,
    data: EvalData,
    evals: Mapping[str, Mapping[str, Any]],
    *,
    split: str = "test",
    num_records: int = 0,
    show_progress: bool = False,
) -> Job:
    """Open what an evaluation needs.

    Args:
      evals: {name: options}, see `evals.evaluator.load`.
      num_records: of each data set; 0: all.

    Raises:
      ValueError: an unknown evaluator or option, no evaluator, a split without records, or what an
        evaluator refuses.
    """
    if not evals:
        raise ValueError("no evaluator: name some with --evals")
    made = {name: evaluator.load(name, options) for name, options in evals.items()}
    config = eval_data.config_of_run(source)
    specs = generator.model.modalities
    datasets: tuple[Dataset, ...] = data.datasets(specs, split, num_records)
    context = Context(
        generator=generator,
        datasets=datasets,
        read=eval_data.reader(data, generator, split),
        num_records=num_records,
        masking=eval_data.masking_of(data, generator.model, config),
        left_out=LeftOutLog(data.max_left_out_records),
        show_progress=show_progress,
    )
    for evaluate in made.values():
        evaluate.check(context)
    return Job(
        source=str(source),
        context=context,
        evaluators=made,
        split=split,
        settings={
            "source": str(source),
            "split": split,
            "data": [one.name for one in datasets],
            "num_records": num_records,
            "evals": {name: dict(options) for name, options in evals.items()},
        },
    )


def run(job: Job, output: epath.PathLike) -> dict[str, Any]:
    """Run all evaluators; write metrics.json and report.html to `output`; return the former.

    Several processes do all of it, as pictures of the report may be generated, and one writes.
    """
    output = epath.Path(output).expanduser()
    findings: dict[str, Findings] = {}
    seconds: dict[str, float] = {}
    for name, evaluate in job.evaluators.items():
        watch = progress.Stopwatch()
        findings[name] = evaluate(job.context)
        seconds[name] = round(watch.seconds(), 2)
        for found, value in findings[name].values():
            announcements.say(f"{name}/{found} {report.number(value)}")
    summary = {
        **job.settings,
        "device": quickstart_report.device(),
        "commit": quickstart_report.commit(),
        "seconds": seconds,
        "tasks": {
            f"{name}/{task}": entry
            for name, found in findings.items()
            for task, entry in found.tasks.items()
        },
        "per_class": {
            f"{name}/{what}": dict(values)
            for name, found in findings.items()
            for what, values in found.per_class.items()
        },
    }
    parts = _parts(job, findings, summary)
    if jax.process_index():
        return summary
    output.mkdir(parents=True, exist_ok=True)
    io.write_json(output / METRICS, _plain(summary))
    report.write(
        output / REPORT,
        title=f"Evaluation of {job.source}",
        summary=f"Split {job.split!r} of {', '.join(summary['data'])}. "
        f"{sum(seconds.values()):.0f} s on {summary['device']}, commit {summary['commit']}. "
        f"Intervals: the central 95 % over records drawn with replacement.",
        parts=parts,
    )
    return summary


def _parts(job: Job, findings: Mapping[str, Findings], summary: Mapping[str, Any]) -> list[str]:
    """HTML: tables, bars, pictures, curves of the training, seconds."""
    parts = [
        report.measures_html(found.tasks, title=name)
        for name, found in findings.items()
        if found.tasks
    ]
    for what, values in summary["per_class"].items():
        note = "One bar per class that occurs among the records."
        parts.append(report.figure_html(what, note, report.bars(values, what.rpartition(": ")[2])))
    for found in findings.values():
        parts += [report.gallery_html(gallery) for gallery in found.draw()]
    parts += _curves(job.source)
    parts.append(report.table_html("Seconds", ("evaluator", "s"), list(summary["seconds"].items())))
    return parts


def _curves(source: epath.PathLike) -> list[str]:
    """Curves of the training of a run; none of other models."""
    folder = epath.Path(source).expanduser()
    trunk = folder / run_folder.TRUNK if (folder / run_folder.TRUNK).is_dir() else folder
    history = metrics.read_history(trunk) if trunk.is_dir() else []
    shown = quickstart_report.series(history, "loss/")
    if not shown:
        return []
    note = "Cross-entropy in nats per target token under random masks (training batches)."
    return [report.figure_html("Training loss", note, report.curves(shown, "loss"))]


def _plain(value: Any) -> Any:
    """JSON knows no numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
