"""What every whole run does with its raw records: learn tokenizers, tokenize, train the trunk.

Each phase leaves its result in the work directory and is skipped when it is there, so that a second
run, or one after an interruption, continues. Layout:
`raw/` raw records, `tokenizers/<name>/`, `data/` token shards, `trunk/` checkpoints and metrics.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import ml_collections
import numpy as np
from etils import epath

from fourm_jax.data import datasets as sources
from fourm_jax.data.crops import policy
from fourm_jax.jobs import phases, pretokenize, shard_job
from fourm_jax.modalities import captions, registry, serializers, vocabulary
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.parallel import mesh
from fourm_jax.tokenizers import store, text
from fourm_jax.train import export, loop, run_config, same_run
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import io, run_folder

PHASES = ("text_tokenizer", "tokenizers", "tokenize", "trunk")
KEYS = ("text_vocab_size", "pretokenize", "tokenizers", "trunk", "evaluation")


def raw_dir(workdir: epath.PathLike) -> epath.Path:
    """Folder of the raw records."""
    return epath.Path(workdir) / run_folder.RAW


def tokenizers_dir(workdir: epath.PathLike) -> epath.Path:
    """Folder with one folder per tokenizer."""
    return epath.Path(workdir) / run_folder.TOKENIZERS


def data_dir(workdir: epath.PathLike) -> epath.Path:
    """Folder of the token shards."""
    return epath.Path(workdir) / run_folder.DATA


def check_keys(
    config: ml_collections.ConfigDict, keys: Iterable[str], counts: Sequence[str], job: str
) -> None:
    """Refuse a config of something else, and counts of nothing.

    Args:
      keys: that the config has, no other.
      counts: dotted keys of numbers that must be at least 1.
      job: what the config should be of, for the message.

    Raises:
      ValueError: a key that is unknown or missing, or a number below 1.
    """
    missing = [key for key in keys if key not in config]
    if missing:
        raise ValueError(f"config lacks the keys {missing}: it is none of {job}")
    config_lib.check_group(config, "", keys)
    values = config_lib.flatten(config)
    for key in counts:
        if values[key] < 1:
            raise ValueError(f"config key {key!r} is {values[key]}, must be at least 1")


def locate(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> ml_collections.ConfigDict:
    """Copy of `config` whose tokenizers and trunk read what this job wrote to `workdir`."""
    config = config.copy_and_resolve_references().unlock()
    config.trunk.data = _from(config.trunk.data, data_dir(workdir))
    for own in config.tokenizers.values():
        own.data = _from(own.data, raw_dir(workdir))
    return config.lock()


def _from(
    datasets: Sequence[ml_collections.ConfigDict], directory: epath.Path
) -> tuple[ml_collections.ConfigDict, ...]:
    """The data sets, read from the shards in `directory`."""
    return tuple(
        ml_collections.ConfigDict(
            {**one.to_dict(), "arguments": {**one.arguments, "directory": str(directory)}}
        )
        for one in datasets
    )


def check(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> None:
    """Refuse, before the first phase, what a later one would.

    Raises:
      ValueError: an invalid config of trunk or tokenizers, a vocabulary of texts without room for
        words, or tokenizers in `workdir` that were trained from another config.
    """
    text.room_for_pieces(config.text_vocab_size, vocabulary.PUBLISHED, num_class_names=0)
    for own in (config.trunk, *config.tokenizers.values()):
        run_config.make_task(own)
        mesh.make_mesh(**own.mesh)
    for name, own in config.tokenizers.items():
        trained = epath.Path(workdir) / "tokenizer_runs" / name
        if (tokenizers_dir(workdir) / name).exists() and (trained / "config.json").exists():
            same_run.check_same_config(io.read_json(trained / "config.json"), own, trained)
    if (tokenizers_dir(workdir) / "text" / store.CARD).exists():
        found = text.TextTokenizer.load(tokenizers_dir(workdir) / "text").vocab_size
        if found != config.text_vocab_size:
            raise ValueError(
                f"text tokenizer in {tokenizers_dir(workdir)} has vocab_size {found}, "
                f"config.text_vocab_size is {config.text_vocab_size}; use another workdir"
            )


def open_raw(workdir: epath.PathLike, split: str) -> sources.Source:
    """Raw records of a split."""
    return sources.open_source("token_shards", split, {"directory": raw_dir(workdir)})


def raw_fields(
    source: sources.Source, names: Sequence[str], count: int
) -> dict[str, np.ndarray | list[Any]]:
    """The first `count` records, field by field; arrays of one shape are stacked."""
    rows = [source[index] for index in range(min(count, len(source)))]
    fields = {name: [row[name] for row in rows] for name in names}
    return {name: stack(values) for name, values in fields.items()}


def stack(values: list[Any]) -> np.ndarray | list[Any]:
    """One array of arrays of one shape; else the list."""
    shapes = {getattr(value, "shape", None) for value in values}
    return np.stack(values) if len(shapes) == 1 and None not in shapes else values


def specs_of(config: ml_collections.ConfigDict) -> tuple[ModalitySpec, ...]:
    """The modalities that are tokenized."""
    modalities = config.pretokenize.modalities.to_dict()
    return registry.resolve(
        modalities["family"],
        modalities["names"],
        modalities["overrides"],
        modalities.get("added"),
    )


def train_text(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    record: phases.Phases,
    *,
    numbers: Iterable[int],
) -> None:
    """Learn the text tokenizer from the captions of the training records with these numbers."""
    output = tokenizers_dir(workdir) / "text"
    if (output / store.CARD).exists():
        record.reuse("text_tokenizer", str(output))
        return
    with record.run("text_tokenizer", "learning word pieces from the captions"):
        forms = {spec.source: spec.text_form for spec in specs_of(config)}
        plain = [field for field, form in forms.items() if form == serializers.PLAIN]
        boxes = [field for field, form in forms.items() if form == "boxes"]
        source = open_raw(workdir, "train")
        texts: list[str] = []
        names: set[str] = set()
        for number in numbers:
            row = source[number]
            texts += [one for field in plain for one in captions.every(row.get(field, ()))]
            names |= {name for field in boxes if field in row for name in row[field]["classes"]}
        tokenizer = text.TextTokenizer.train(
            texts,
            vocab_size=config.text_vocab_size,
            class_names=sorted(names),  # every name becomes one word
        )
        tokenizer.save(output)


def train_tokenizers(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    record: phases.Phases,
    *,
    held_out: str = "test",
) -> None:
    """Train what is not there yet; errors on the cards are of the split `held_out`."""
    missing = [name for name in config.tokenizers if not (tokenizers_dir(workdir) / name).exists()]
    if not missing:
        record.reuse("tokenizers", ", ".join(config.tokenizers))
        return
    with record.run("tokenizers", f"training {', '.join(missing)}"):
        for name in missing:
            own = config.tokenizers[name]
            result = loop.train(own, workdir / "tokenizer_runs" / name)
            raw = export.read_held_out(own, held_out)
            export.save_tokenizer(own, result.state, tokenizers_dir(workdir) / name, held_out=raw)


def tokenize(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    record: phases.Phases,
    *,
    splits: Sequence[str],
) -> dict[str, shard_job.Result]:
    """Write the token shards of every split; return what became of them."""
    settings = config.pretokenize.to_dict()
    finished = all((data_dir(workdir) / f"{split}.json").exists() for split in splits)
    specs = specs_of(config)
    doing = "reusing" if finished else "writing"
    results = {}
    with record.run("tokenize", f"{doing} token shards of {len(specs)} modalities"):
        for split in splits:
            job = pretokenize.Job(
                source=open_raw(workdir, split),
                output=data_dir(workdir),
                split=split,
                recipe={"source": settings["source"], "arguments": settings["arguments"]},
                records_per_shard=settings["records_per_shard"],
                show_progress=not finished,
            )
            results[split] = pretokenize.tokenize(
                job,
                specs,
                tokenizers_dir(workdir),
                seed=settings["seed"],
                crops=policy.make(settings.get("crops", {})),
            )
    return results


def train_trunk(
    config: ml_collections.ConfigDict, workdir: epath.Path, record: phases.Phases
) -> loop.TrainResult:
    """Train the trunk, or continue it."""
    with record.run("trunk", f"{config.trunk.num_steps:,} steps of masked prediction"):
        return loop.train(config.trunk, workdir / run_folder.TRUNK)
