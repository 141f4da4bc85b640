"""One modality more for a trained model: its tokens, a training from its weights, what it knew.

The work directory becomes a run folder: `tokenizers/` of the source, `data/` with the new modality,
`trunk/`. Each phase is skipped when its result is there.
"""

import dataclasses
import itertools
import pathlib
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath
from jaxtyping import Float

from fourm_jax import loading
from fourm_jax.contracts import TokenBatch
from fourm_jax.data import datasets as sources
from fourm_jax.data import pipeline
from fourm_jax.data.crops import policy
from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.data.storage import left_out
from fourm_jax.evals import any_to_any
from fourm_jax.jobs import phases, pretokenize
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import trained
from fourm_jax.models.fourm import FourM
from fourm_jax.train import fourm_task, loop, run_config
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors, folder_lock, folders, io, run_folder

PHASES = ("tokenize", "trunk", "evaluate")
KEYS = (
    *("added", "similar", "tokenize", "mixture", "replay"),
    *("old_rate", "num_steps", "optimizer", "from_start"),
)
DATA, NEW_DATA, METRICS = "data", "with_the_new", "metrics.json"
NUM_BATCHES = 16  # of old held-out records, masked as before


def run(
    config: ml_collections.ConfigDict,
    source: epath.PathLike,
    workdir: epath.PathLike,
    record: phases.Phases,
) -> dict[str, Any]:
    """Run the phases; return what is written to metrics.json.

    Args:
      config: see configs/finetune/add_to_scenes.py.
      source: run folder with a trunk and its tokenizers.
      workdir: of this job alone.

    Raises:
      ValueError: an invalid config, a source that is no run folder or has the modality already.
    """
    check_keys(config)
    source, workdir = epath.Path(source).expanduser(), epath.Path(workdir).expanduser()
    before = source_config(source)
    if source.resolve() == workdir.resolve():
        raise ValueError(f"workdir {workdir} is the source: name a folder of this job alone")
    training = training_config(config, before, source, workdir / DATA)
    run_config.make_task(training)
    with folder_lock.hold(workdir):
        if not (workdir / run_folder.TOKENIZERS).is_dir():
            with folders.complete_or_absent(workdir / run_folder.TOKENIZERS) as copy:
                shutil.copytree(source / run_folder.TOKENIZERS, copy, dirs_exist_ok=True)
        _tokenize(config, workdir, record)
        with record.run("trunk", f"{training.num_steps:,} steps from {source}"):
            loop.train(training, workdir / run_folder.TRUNK)
        with record.run("evaluate", "what it knew, and what is new"):
            summary = evaluate(config, before, source, workdir)
    io.write_json(workdir / METRICS, {**record.summary(), **summary})
    return summary


def check_keys(config: ml_collections.ConfigDict) -> None:
    """Refuse a config of something else.

    Raises:
      ValueError: a key that is unknown or missing, a share or rate out of range.
    """
    missing = [key for key in KEYS if key not in config]
    if missing:
        raise ValueError(f"config lacks the keys {missing}: it adds no modality")
    config_lib.check_group(config, "", KEYS)
    if not 0 <= config.replay < 1:
        raise ValueError(f"replay {config.replay}, allowed: 0 <= x < 1")
    if not 0 <= config.old_rate <= 1:
        raise ValueError(f"old_rate {config.old_rate}, allowed: 0 <= x <= 1")


def source_config(source: epath.Path) -> ml_collections.ConfigDict:
    """Config of the trunk of a run folder, its data where they are now.

    Raises:
      ValueError: no run folder of a trunk and its tokenizers.
    """
    for name in (run_folder.TRUNK, run_folder.TOKENIZERS):
        if not (source / name).is_dir():
            raise ValueError(f"{source} is no run folder: no {source / name}")
    workdir = (source / run_folder.TRUNK).absolute()
    description = trained.load(workdir).description
    stored = dict(description.config)
    stored["data"] = [_here(data, description.place, workdir) for data in stored["data"]]
    return config_lib.from_json(stored)


def _here(data: Mapping[str, Any], place: trained.Place | None, workdir: epath.Path) -> Any:
    """A data set whose folder is named as seen from here, wherever the run was moved."""
    directory = data["arguments"].get("directory")
    if directory is None or place is None:
        return data
    known = {str(pathlib.Path(workdir, path).resolve()) for path in place.leads_to(directory)}
    found = next((path for path in sorted(known) if pathlib.Path(path).is_dir()), directory)
    return {**data, "arguments": {**data["arguments"], "directory": found}}


def training_config(
    config: ml_collections.ConfigDict,
    before: ml_collections.ConfigDict,
    source: epath.Path,
    data: epath.Path,
) -> ml_collections.ConfigDict:
    """Config of the training: the source's, with the new modality and its data beside the old.

    With `from_start` it takes the steps of both and starts from nothing: what a model is worth that
    had the modality all along.

    Raises:
      ValueError: the source has the modality already, or one of that name.
    """
    added = config_lib.plain(config.added)
    groups = config_lib.to_json(before)
    old = groups["modalities"]
    for name in added:
        if name in (*old["inputs"], *old["outputs"]):
            raise ValueError(f"modality {name!r} is in {source} already")
    for new, known in config.similar.items():
        if new not in added:
            raise ValueError(errors.unknown_value("similar", new, added))
        if known not in old["outputs"]:
            raise ValueError(errors.unknown_value(f"similar.{new}", known, old["outputs"]))
    tokens = [name for name, spec in added.items() if spec.get("vocab_size")]
    groups["modalities"] = {
        **old,
        "inputs": [*old["inputs"], *added],
        "outputs": [*old["outputs"], *tokens],
        "added": {**old.get("added", {}), **added},
    }
    fields = {name: name for name in config.tokenize.modalities.names}
    new_data = {
        "name": _new_name([one["name"] for one in groups["data"]]),
        "source": "token_shards",
        "arguments": {"directory": str(data)},
        "fields": {**fields, **{name: name for name in added}},
        "mixture": config_lib.plain(config.mixture),
        "weight": 1 - config.replay,
    }
    total = sum(one["weight"] for one in groups["data"])
    replayed = [{**d, "weight": config.replay * d["weight"] / total} for d in groups["data"]]
    groups["data"] = [*(replayed if config.replay else []), new_data]
    groups["eval_every"] = 0
    if config.from_start:
        groups["num_steps"] += config.num_steps
        return config_lib.from_json(groups)
    own = _parts_of(added)
    fresh = [name for name in added if name not in config.similar]
    groups["init"] = {
        "source": str(source),
        "rename": {
            rf"/{re.escape(new)}(?=/|$)": f"/{known}" for new, known in config.similar.items()
        },
        "reset": _parts_of(fresh) if fresh else "",
    }
    groups["optimizer"] = config_lib.plain(config.optimizer)
    if config.old_rate == 0:
        groups["init"]["freeze"] = f"^(?!.*({own}))"
    elif config.old_rate < 1:
        groups["optimizer"]["lr_scales"] = {own: 1.0, "^": config.old_rate}
    groups["num_steps"] = config.num_steps
    return config_lib.from_json(groups)


def _new_name(taken: Collection[str]) -> str:
    """Name of the new data: a run that was made like this one has such data already."""
    numbered = (f"{NEW_DATA}_{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([NEW_DATA], numbered) if name not in taken)


def _parts_of(modalities: Collection[str]) -> str:
    """Regex of the parts that modalities own."""
    return "|".join(rf"/(contents_)?{re.escape(name)}(/|$)" for name in modalities)


def _tokenize(
    config: ml_collections.ConfigDict, workdir: epath.Path, record: phases.Phases
) -> None:
    settings = config_lib.plain(config.tokenize)
    finished = all((workdir / DATA / f"{s}.json").exists() for s in settings["num_records"])
    specs = _specs(config)
    doing = "reusing" if finished else "writing"
    with record.run("tokenize", f"{doing} tokens of {', '.join(spec.name for spec in specs)}"):
        for split, count in settings["num_records"].items():
            arguments = {**settings["arguments"], "num_records": count}
            job = pretokenize.Job(
                source=sources.open_source(settings["source"], split, arguments),
                output=workdir / DATA,
                split=split,
                recipe={"source": settings["source"], "arguments": arguments},
                records_per_shard=settings["records_per_shard"],
                show_progress=not finished,
            )
            tokenizers = workdir / run_folder.TOKENIZERS
            crops = policy.make(settings.get("crops", {}))
            pretokenize.tokenize(job, specs, tokenizers, seed=settings["seed"], crops=crops)


def _specs(config: ml_collections.ConfigDict) -> tuple[ModalitySpec, ...]:
    group = config_lib.plain(config.tokenize.modalities)
    added = config_lib.plain(config.added)
    return registry.resolve(group["family"], group["names"], group["overrides"], added)


def evaluate(
    config: ml_collections.ConfigDict,
    before: ml_collections.ConfigDict,
    source: epath.Path,
    workdir: epath.Path,
) -> dict[str, Any]:
    """{"knew": loss before and after per old modality, "tasks": of the new one where it is made}.

    The losses are of the same held-out records under the same masks.
    """
    knew = {"before": old_losses(before, source), "after": old_losses(before, workdir)}
    first, last = (knew[when]["all"] for when in ("before", "after"))
    generator = loading.load_generator(workdir)
    targets = [name for name in config.added if generator.spec(name).is_token]
    tasks = any_to_any.from_one(generator, _held_out(config, workdir), "rgb", targets=targets)
    return {"knew": {**knew, "change": last / first - 1}, "tasks": tasks}


def _held_out(config: ml_collections.ConfigDict, workdir: epath.Path) -> any_to_any.HeldOut:
    """Tokens of the new held-out records, and raw fields of what is added."""
    settings, specs = config_lib.plain(config.tokenize), _specs(config)
    counts, crops = settings["num_records"], policy.make(settings.get("crops", {}))
    names = sorted({spec.source for spec in specs if spec.name in config.added})
    raw = {}
    for split in ("train", "test"):
        arguments = {**settings["arguments"], "num_records": min(counts[split], counts["test"])}
        source = sources.open_source(settings["source"], split, arguments)
        gone = left_out.gone(workdir / DATA, split)
        kept = [number for number in range(len(source)) if number not in gone]
        rows = [source[number] for number in kept]  # which were good when they were tokenized
        if crops:  # evaluation reads the first one of the tokens
            numbered = zip(rows, kept, strict=True)
            rows = [crops.crop_one(row, number, names, 0, specs) for row, number in numbered]
        raw[split] = {name: np.stack([row[name] for row in rows]) for name in names}
    fields = {spec.name: spec.name for spec in specs}
    shards = sources.open_source("token_shards", "test", {"directory": str(workdir / DATA)})
    dataset = sources.Dataset(name="test", source=shards, fields=fields)
    batches = pipeline.one_pass((dataset,), specs, batch_size=len(shards))
    tokens, _ = next(iter(batches))
    return any_to_any.HeldOut(truth=raw["test"], tokens=tokens, train=raw["train"])


def old_losses(before: ml_collections.ConfigDict, source: epath.Path) -> dict[str, float]:
    """Held-out loss per old modality, and of "all", of the model in a run folder.

    Of each data set as many records are read, or all that it has.
    """
    task = run_config.make_task(before)
    assert isinstance(task, fourm_task.FourMTask)
    generator = loading.load_generator(source)
    specs, key = task.model.modalities, jax.random.key(before.seed)
    datasets = run_config.make_datasets(before, "test")
    size = before.batch_size // task.maskings_per_record

    @jax.jit
    def losses(
        params: Any, batch: Any, valid: Any, key: Any
    ) -> tuple[Float[jax.Array, "m"], Float[jax.Array, "m"]]:
        tokens = renumbered(task.sample(key, batch), task.model, generator.model)
        lost: Any = generator.model.apply({"params": params}, tokens, method="token_losses")
        number = jnp.asarray(_numbers(task.model, generator.model))
        counts = tokens.targets.valid & jnp.repeat(valid, task.maskings_per_record)[:, None]
        hot = (tokens.targets.modality[..., None] == number) & counts[..., None]
        return (lost.loss[..., None] * hot).sum((0, 1)), hot.sum((0, 1)).astype(jnp.float32)

    sums = np.zeros((2, len(specs)))
    left_out_log = LeftOutLog(before.get("max_left_out_records", 0))
    batches = pipeline.one_pass(
        datasets,
        specs,
        batch_size=size,
        num_records=-(-NUM_BATCHES * size // len(datasets)),
        left_out=left_out_log,
    )
    for number, (batch, valid) in enumerate(batches):
        found = losses(generator.params, batch, valid, jax.random.fold_in(key, number))
        sums += np.stack(jax.device_get(found))
    by_name = {
        spec.name: float(total / count)
        for spec, total, count in zip(specs, *sums, strict=True)
        if count
    }
    return {**by_name, "all": float(sums[0].sum() / sums[1].sum())}


def renumbered(tokens: TokenBatch, before: FourM, after: FourM) -> TokenBatch:
    """The same tokens for a model that has these modalities in other places, and others that no
    sample holds."""
    number = jnp.asarray(_numbers(before, after))
    inputs, targets = tokens.inputs, tokens.targets
    count, others = len(inputs.id), [spec for spec in after.modalities if spec.name in after.inputs]
    pixels = {
        spec.name: jnp.zeros((count, *spec.image_shape), jnp.uint8)
        for spec in others
        if spec.kind == "pixels"
    }
    vectors = {
        spec.name: jnp.zeros((count, spec.max_tokens, spec.embedding_dim), jnp.bfloat16)
        for spec in others
        if spec.kind == "embedding"
    }
    return dataclasses.replace(
        tokens,
        pixels=pixels | tokens.pixels,
        embeddings=vectors | tokens.embeddings,
        inputs=dataclasses.replace(inputs, modality=number[inputs.modality]),
        targets=dataclasses.replace(targets, modality=number[targets.modality]),
    )


def _numbers(before: FourM, after: FourM) -> Sequence[int]:
    names = [spec.name for spec in after.modalities]
    for spec in before.modalities:
        if spec.name not in names:
            raise ValueError(errors.unknown_value("modality", spec.name, names))
    return [names.index(spec.name) for spec in before.modalities]
