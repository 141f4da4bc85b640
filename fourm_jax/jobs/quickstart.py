"""The whole road in one job: render, learn tokenizers, tokenize, train the trunk.

Each phase leaves its result in the work directory and is skipped when it is there, so that a
second run, or one after an interruption, continues. Layout:
`raw/` raw scenes, `tokenizers/<name>/`, `data/` token shards, `trunk/` checkpoints and metrics.
"""

from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
from etils import epath

from fourm_jax.data import datasets as sources
from fourm_jax.data.crops import policy
from fourm_jax.jobs import phases, pretokenize, shard_job
from fourm_jax.modalities import captions, registry, serializers
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.parallel import mesh
from fourm_jax.tokenizers import store, text
from fourm_jax.train import export, loop, run_config
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import folder_lock, io, run_folder

PHASES = (
    *("render", "text_tokenizer", "tokenizers", "tokenize"),
    *("trunk", "evaluate", "report"),
)
SPLITS = ("train", "test")
KEYS = ("text_vocab_size", "raw_fields", "pretokenize", "tokenizers", "trunk", "evaluation")
NUM_TEXTS = 4_096  # records that the text tokenizer learns from


def raw_dir(workdir: epath.PathLike) -> epath.Path:
    """Folder of the raw records."""
    return epath.Path(workdir) / run_folder.RAW


def tokenizers_dir(workdir: epath.PathLike) -> epath.Path:
    """Folder with one folder per tokenizer."""
    return epath.Path(workdir) / run_folder.TOKENIZERS


def prepare(
    config: ml_collections.ConfigDict, workdir: epath.PathLike, record: phases.Phases
) -> loop.TrainResult:
    """Run the phases up to the trained trunk; return its final state.

    Args:
      config: see configs/quickstart.py.
      workdir: of this job alone.
      record: keeps the seconds of each phase.

    Raises:
      ValueError: an invalid config, a work directory made with another one, or one that another
        process writes.
    """
    check_keys(config)
    config, workdir = locate(config, workdir), epath.Path(workdir)
    check(config, workdir)
    with folder_lock.hold(workdir):
        _render(config, workdir, record)
        _train_text(config, workdir, record)
        _train_tokenizers(config, workdir, record)
        _tokenize(config, workdir, record)
        with record.run("trunk", f"{config.trunk.num_steps:,} steps of masked prediction"):
            return loop.train(config.trunk, workdir / run_folder.TRUNK)


def check(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> None:
    """Refuse, before the first phase, what a later one would.

    Raises:
      ValueError: an invalid config of trunk or tokenizers, or tokenizers in `workdir` that were
        trained from another one.
    """
    for own in (config.trunk, *config.tokenizers.values()):
        run_config.make_task(own)
        mesh.make_mesh(**own.mesh)
    for name, own in config.tokenizers.items():
        trained = epath.Path(workdir) / "tokenizer_runs" / name
        if (tokenizers_dir(workdir) / name).exists() and (trained / "config.json").exists():
            loop.check_same_config(io.read_json(trained / "config.json"), own, trained)
    if (tokenizers_dir(workdir) / "text" / store.CARD).exists():
        found = text.TextTokenizer.load(tokenizers_dir(workdir) / "text").vocab_size
        if found != config.text_vocab_size:
            raise ValueError(
                f"text tokenizer in {tokenizers_dir(workdir)} has vocab_size {found}, "
                f"config.text_vocab_size is {config.text_vocab_size}; use another workdir"
            )


def check_keys(config: ml_collections.ConfigDict) -> None:
    """Refuse a config of something else, and counts of nothing.

    Raises:
      ValueError: a key that is unknown or missing, or a number below 1.
    """
    missing = [key for key in KEYS if key not in config]
    if missing:
        raise ValueError(f"config lacks the keys {missing}: it is none of the quickstart")
    config_lib.check_group(config, "", KEYS)
    counts = config.pretokenize.num_records
    numbers = {
        **{f"pretokenize.num_records.{split}": counts[split] for split in SPLITS},
        **{f"evaluation.{key}": config.evaluation[key] for key in ("num_records", "num_shown")},
    }
    for key, value in numbers.items():
        if value < 1:
            raise ValueError(f"config key {key!r} is {value}, must be at least 1")


def locate(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> ml_collections.ConfigDict:
    """Copy of `config` whose tokenizers and trunk read what this job wrote to `workdir`."""
    config = config.copy_and_resolve_references().unlock()
    config.trunk.data = _from(config.trunk.data, epath.Path(workdir) / "data")
    for own in config.tokenizers.values():
        own.data = _from(own.data, raw_dir(workdir))
    return config.lock()


def _from(
    datasets: Sequence[ml_collections.ConfigDict], directory: epath.Path
) -> tuple[ml_collections.ConfigDict, ...]:
    """The data sets, read from the shards in `directory`."""
    arguments = {"directory": str(directory)}
    return tuple(
        ml_collections.ConfigDict({**one.to_dict(), "arguments": arguments}) for one in datasets
    )


def open_raw(workdir: epath.PathLike, split: str) -> sources.Source:
    """Raw records of a split, as `_render` wrote them."""
    return sources.open_source("token_shards", split, {"directory": raw_dir(workdir)})


def raw_fields(
    source: sources.Source, names: Sequence[str], count: int
) -> dict[str, np.ndarray | list[Any]]:
    """The first `count` records, field by field; arrays of one shape are stacked."""
    rows = [source[index] for index in range(min(count, len(source)))]
    fields = {name: [row[name] for row in rows] for name in names}
    return {name: _stack(values) for name, values in fields.items()}


def _stack(values: list[Any]) -> np.ndarray | list[Any]:
    shapes = {getattr(value, "shape", None) for value in values}
    return np.stack(values) if len(shapes) == 1 and None not in shapes else values


def _render(config: ml_collections.ConfigDict, workdir: epath.Path, record: phases.Phases) -> None:
    settings = config.pretokenize
    finished = all((raw_dir(workdir) / f"{split}.json").exists() for split in SPLITS)
    counts = settings.num_records.to_dict()
    what = f"{counts['train']:,} training and {counts['test']:,} held-out records"
    with record.run("render", f"{'reusing' if finished else 'making'} {what}"):
        for split in SPLITS:
            arguments = {**settings.arguments.to_dict(), "num_records": counts[split]}
            job = pretokenize.Job(
                source=sources.open_source(settings.source, split, arguments),
                output=raw_dir(workdir),
                split=split,
                recipe={"source": settings.source, "arguments": arguments},
                records_per_shard=settings.records_per_shard,
                show_progress=not finished,
            )
            _check(pretokenize.export(job, config.raw_fields))


def _train_text(
    config: ml_collections.ConfigDict, workdir: epath.Path, record: phases.Phases
) -> None:
    output = tokenizers_dir(workdir) / "text"
    if (output / store.CARD).exists():
        record.reuse("text_tokenizer", str(output))
        return
    with record.run("text_tokenizer", "learning word pieces from the captions"):
        forms = {spec.source: spec.text_form for spec in _specs(config)}
        plain = [field for field, form in forms.items() if form == serializers.PLAIN]
        boxes = [field for field, form in forms.items() if form == "boxes"]
        rows = raw_fields(open_raw(workdir, "train"), [*plain, *boxes], NUM_TEXTS)
        tokenizer = text.TextTokenizer.train(
            [captions.serialize(value) for field in plain for value in rows[field]],
            vocab_size=config.text_vocab_size,
            # Every name becomes one word.
            class_names=sorted(
                {name for field in boxes for value in rows[field] for name in value["classes"]}
            ),
        )
        tokenizer.save(output)


def _specs(config: ml_collections.ConfigDict) -> tuple[ModalitySpec, ...]:
    """The modalities that are tokenized."""
    modalities = config.pretokenize.modalities.to_dict()
    return registry.resolve(modalities["family"], modalities["names"], modalities["overrides"])


def _train_tokenizers(
    config: ml_collections.ConfigDict, workdir: epath.Path, record: phases.Phases
) -> None:
    missing = [name for name in config.tokenizers if not (tokenizers_dir(workdir) / name).exists()]
    if not missing:
        record.reuse("tokenizers", ", ".join(config.tokenizers))
        return
    with record.run("tokenizers", f"training {', '.join(missing)}"):
        for name in missing:
            own = config.tokenizers[name]
            result = loop.train(own, workdir / "tokenizer_runs" / name)
            export.save_tokenizer(own, result.state, tokenizers_dir(workdir) / name)


def _tokenize(
    config: ml_collections.ConfigDict, workdir: epath.Path, record: phases.Phases
) -> None:
    settings = config.pretokenize.to_dict()
    finished = all((workdir / "data" / f"{split}.json").exists() for split in SPLITS)
    specs = _specs(config)
    doing = "reusing" if finished else "writing"
    with record.run("tokenize", f"{doing} token shards of {len(specs)} modalities"):
        for split in SPLITS:
            job = pretokenize.Job(
                source=open_raw(workdir, split),
                output=workdir / "data",
                split=split,
                recipe={"source": settings["source"], "arguments": settings["arguments"]},
                records_per_shard=settings["records_per_shard"],
                show_progress=not finished,
            )
            written = pretokenize.tokenize(
                job,
                specs,
                tokenizers_dir(workdir),
                seed=settings["seed"],
                crops=policy.make(settings.get("crops", {})),
            )
            _check(written)


def _check(result: shard_job.Result) -> None:
    """Raw records and tokens are compared row by row: none may be left out."""
    if result.left_out.num_records:
        count, first = result.left_out.num_records, result.left_out.examples[0]
        raise ValueError(f"{count} records left out, e.g. {first}")
