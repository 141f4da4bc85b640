"""Evaluate a run over one's own pictures: report.html, gallery.png and metrics.json.

Pictures that were trained on are judged beside those that were held out: a trunk that knows the
first and fails on the second has learned them by heart. Everything is predicted once, for both
together: what is compiled for a batch of one size serves no other.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from etils import epath

from fourm_jax import loading
from fourm_jax.data import datasets, pipeline
from fourm_jax.data.crops import policy
from fourm_jax.data.storage import left_out
from fourm_jax.evals import any_to_any, galleries, measure, panels, pictures, report
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import own_pictures, phases, quickstart_report, run_phases
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import io, progress

TITLES = {"train": "Pictures it was trained on", "test": "Held-out pictures"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """What the trunk makes of some records of every split.

    Attributes:
      data: truth and tokens of all of them; constants are of those trained on.
      rows: numbers of the records of each split.
      files: names of the pictures.
      made: {(given modality, target): values}.
      best: {target: the true tokens, decoded}.
    """

    data: any_to_any.HeldOut
    rows: Mapping[str, Sequence[int]]
    files: Sequence[str]
    made: Mapping[tuple[str, str], Any]
    best: Mapping[str, Any]


def run(
    config: ml_collections.ConfigDict,
    found: own_pictures.Survey,
    workdir: epath.PathLike,
    record: phases.Phases,
) -> epath.Path:
    """Run the last two phases, unless report.html is there; return its path.

    Raises:
      ValueError: the run is not finished.
    """
    config, workdir = run_phases.locate(config, workdir), epath.Path(workdir)
    page = workdir / "report.html"
    if page.exists():
        for name in ("evaluate", "report"):
            record.reuse(name, f"{page}; delete it to draw it again")
        return page
    generator = loading.load_generator(workdir)
    data, rows, files = read(config, workdir, generator)
    with record.run("evaluate", f"{len(data)} pictures, one modality from another"):
        made, best = predict(config, generator, data)
        predictions = Predictions(data=data, rows=rows, files=files, made=made, best=best)
        tasks = {split: judge(generator, predictions, split) for split in rows}
    with record.run("report", "drawing galleries and curves"):
        parts = [
            _files_html(found, workdir),
            *draw(config, workdir, generator, predictions),
            *(report.tasks_html(tasks[split], f"{TITLES[split]}: metrics") for split in rows),
            *quickstart_report.curves(workdir),
            quickstart_report.codebooks(workdir, generator),
        ]
    device, commit = quickstart_report.device(), quickstart_report.commit()
    summary = {**record.summary(), "device": device, "commit": commit, "tasks": tasks}
    io.write_json(workdir / "metrics.json", summary)
    seconds = summary["seconds"]
    parts.append(report.table_html("Seconds per phase", ("phase", "s"), list(seconds.items())))
    steps = f"{config.trunk.num_steps:,} steps of {config.trunk.batch_size} samples"
    report.write(
        page,
        title=f"fourm_jax: {len(found.files):,} pictures of {found.images.name or found.images}",
        summary=f"Trunk: {steps}, width {config.trunk.model.dim}. {seconds['total']:.0f} s in "
        f"all, {summary['peak_rss_gb']:.1f} GB peak, {device}, commit {commit}.",
        parts=parts,
    )
    return page


def read(
    config: ml_collections.ConfigDict, workdir: epath.Path, generator: Generator
) -> tuple[any_to_any.HeldOut, dict[str, range], list[str]]:
    """The first records of each split, joined; which rows are whose; names of the pictures.

    Pictures and maps are centre crops; texts are what their tokens say.
    """
    specs = generator.model.modalities
    maps = sorted({spec.source for spec in specs if spec.kind != "sequence"})
    tokens: dict[str, list[Any]] = {spec.name: [] for spec in specs}
    fields: dict[str, list[np.ndarray]] = {name: [] for name in maps}
    rows: dict[str, range] = {}
    files: list[str] = []
    for split in own_pictures.splits_of(workdir):
        sets = datasets.make_datasets(
            [{**one.to_dict(), "mixture": None} for one in config.trunk.data], split
        )
        count = min(config.evaluation.num_records, len(sets[0].source))
        batch, _ = next(pipeline.one_pass(sets, specs, batch_size=count, num_records=count))
        for name in tokens:
            tokens[name].append(batch[name])
        for file, row in _centre_crops(config, workdir, maps, split, count, specs):
            files.append(file)
            for name in maps:
                fields[name].append(row[name])
        start = sum(map(len, rows.values()))
        rows[split] = range(start, start + count)
    entries = {
        name: {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        for name, parts in tokens.items()
    }
    truth: dict[str, Any] = {name: np.stack(values) for name, values in fields.items()}
    data = any_to_any.HeldOut(truth=truth, tokens=entries, train={})
    for spec in specs:
        if spec.kind == "sequence":
            truth[spec.source] = any_to_any.bound(generator, data, spec)
    train = {name: _take(values, rows["train"]) for name, values in truth.items()}
    return dataclasses.replace(data, train=train), rows, files


def _centre_crops(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    names: Sequence[str],
    split: str,
    count: int,
    specs: Sequence[ModalitySpec],
) -> list[tuple[str, Mapping[str, Any]]]:
    """Names and first crops of the raw records that have tokens."""
    crops = policy.CropPolicy(num_crops=1, size=tuple(config.pretokenize.crops.size))
    raw = run_phases.open_raw(workdir, split)
    gone = left_out.gone(run_phases.data_dir(workdir), split)
    kept = [number for number in range(min(len(raw), count + len(gone))) if number not in gone]
    return [
        (raw[number]["file"], crops.crop_one(raw[number], number, names, 0, specs))
        for number in kept[:count]
    ]


def _take(values: Any, rows: Sequence[int]) -> Any:
    return values[list(rows)] if isinstance(values, np.ndarray) else [values[row] for row in rows]


def predict(
    config: ml_collections.ConfigDict, generator: Generator, data: any_to_any.HeldOut
) -> tuple[dict[tuple[str, str], Any], dict[str, Any]]:
    """Every other modality from the pixels and the picture from each cue; tokens decoded."""
    settings, made = config.evaluation, dict[tuple[str, str], Any]()
    given, picture = generator.spec(settings.condition), generator.spec(settings.picture)
    targets = [n for n in generator.model.outputs if generator.spec(n).source != given.source]
    tasks: list[tuple[str, str, int | None]] = [(given.name, name, None) for name in targets]
    tasks += [(cue, picture.name, settings.num_steps) for cue in settings.cues]
    for cue, name, num_steps in progress.track(tasks, label="evaluate", unit="task", name=_title):
        done = generator.generate({cue: data.tokens[cue]}, [name], num_steps=num_steps)
        made[cue, name] = any_to_any.record_values(generator.spec(name), done.decoded[name])
    best = {
        name: any_to_any.bound(generator, data, generator.spec(name))
        for name in generator.model.outputs
    }
    return made, best


def _title(task: tuple[str, str, int | None]) -> str:
    return f"{task[0]}->{task[1]}"


def judge(generator: Generator, predictions: Predictions, split: str) -> dict[str, dict[str, Any]]:
    """Entries of metrics.json of a split; a record that lacks one of the two is left out."""
    tasks, data = {}, predictions.data
    for (given, name), values in predictions.made.items():
        spec = generator.spec(name)
        how = measure.of(spec, any_to_any.signal_of(generator, spec))
        there = _present(data.tokens[given]) & _present(data.tokens[name])
        rows = [row for row in predictions.rows[split] if there[row]]
        if how and rows:
            truth = _take(data.truth[spec.source], rows)
            best = _take(predictions.best[name], rows)
            train = data.train[spec.source]
            tasks[f"{given}->{name}"] = measure.judge(
                how, _take(values, rows), best, truth, train=train
            )
    return tasks


def _present(entry: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(entry["length"]) > 0 if "length" in entry else np.asarray(entry["present"])


def draw(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    generator: Generator,
    predictions: Predictions,
) -> list[str]:
    """HTML of a gallery of each split; together they are gallery.png."""
    painter = galleries.Painter(generator, predictions.data.train)
    parts, sheets = [], []
    for split, rows in predictions.rows.items():
        shown = rows[: config.evaluation.num_shown]
        gallery = _gallery(config, generator, predictions, painter, shown, TITLES[split])
        parts.append(report.gallery_html(gallery, height=112))
        sheets.append(panels.table(gallery.columns[1:], gallery.rows))
    io.write_bytes(workdir / "gallery.png", pictures.png(panels.stacked(sheets)))
    return parts


def _gallery(
    config: ml_collections.ConfigDict,
    generator: Generator,
    predictions: Predictions,
    painter: galleries.Painter,
    rows: Sequence[int],
    title: str,
) -> report.Gallery:
    settings, data, made = config.evaluation, predictions.data, predictions.made
    picture = settings.picture
    pixels = data.truth[generator.spec(picture).source]
    sources = {spec.name: spec.source for spec in generator.model.modalities}
    columns: dict[str, tuple[str, Any]] = {
        "picture": (picture, pixels),
        "its tokens": (picture, predictions.best[picture]),
    }
    for cue in settings.cues:
        columns[f"given {sources[cue]}"] = (cue, data.truth[sources[cue]])
        columns[f"from {sources[cue]}"] = (picture, made[cue, picture])
    for given, name in made:
        if name != picture:
            columns[f"{sources[name]} from pixels"] = (name, made[given, name])
    cells = [
        [painter.paint(name, values[row], pixels[row]) for name, values in columns.values()]
        for row in rows
    ]
    labels = [pathlib.PurePath(predictions.files[row]).stem[:17] for row in rows]
    return report.Gallery(
        title=title,
        note="Per picture: what the tokenizer keeps of it (no trunk can do better), what the trunk "
        "draws when it is given one other modality alone, and what it reads off the pixels.",
        columns=["", *columns],
        rows=list(zip(labels, cells, strict=True)),
    )


def _files_html(found: own_pictures.Survey, workdir: epath.Path) -> str:
    """How many files are used, and why the others are not."""
    rows: list[tuple[str, Any]] = []
    reasons: collections.Counter[str] = collections.Counter()
    for split in own_pictures.splits_of(workdir):
        rows.append((TITLES[split], len(run_phases.open_raw(workdir, split))))
        reasons.update(left_out.summarize(run_phases.raw_dir(workdir), split).reasons)
    rows += [(f"left out: {reason}", count) for reason, count in sorted(reasons.items())]
    return report.table_html(f"Files in {found.images}", ("", "files"), rows)
