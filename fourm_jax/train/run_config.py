"""From a config to what a run needs: the only file that reads config keys besides the loop.

Every group of keys holds the fields of one dataclass or the arguments of one function, so that a
key, a field and an argument have the same name; a key that none of them has is an error.
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Generator
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh

from fourm_jax.contracts import Batch
from fourm_jax.data import channels, collate, pipeline
from fourm_jax.data import datasets as sources
from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.masking import mixture
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import from_config
from fourm_jax.parallel import distributed, sharding
from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.tokenizers import base, card
from fourm_jax.train import (
    best,
    fourm_task,
    init,
    optimizer,
    tokenizer_task,
    transfer_config,
    transfer_data,
    transfer_task,
)
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors, progress, rng

# Numbers of the top level and their smallest value.
SMALLEST = {
    "seed": 0,
    "batch_size": 1,
    "num_steps": 0,
    "log_every": 1,
    "checkpoint_every": 0,
    "keep_checkpoints": 0,
    "eval_every": 0,
    "max_left_out_records": 0,
}
# How many threads of how many processes read batches (`data.pipeline.make_batches`), where a config
# speaks of it; a key without a value here is left to the pipeline.
READING = {"num_threads": 0, "num_workers": 0}
# Keys that configs of older versions lack, with what those did.
NEWER = {"checkpoint_minutes": 0.0, "keep_best": 0}
COMMON_KEYS = ("task", "mesh", "optimizer", "data", *SMALLEST)
# evals: {name: options}, see `jobs.training_evals`; best_metric, best_is: which of their numbers
# (or those of `eval_every`) `keep_best` follows, and whether the "lowest" or "highest" is best
# (`train.best`).
OPTIONAL_KEYS = ("init", "evals", "best_metric", "best_is")
EVALUATION_KEYS = ("eval_every", "evals.", "best_metric", "best_is", "keep_best")  # change no step
TASK_KEYS = {
    "fourm": ("dtype", "modalities", "model", "masking", "loss"),
    "tokenizer": ("tokenizer",),
    "transfer": ("dtype", "modalities", "model", "transfer"),
}
DATASET_KEYS = ("name", "source", "arguments", "fields", "channels", "weight", "mixture")
Task = fourm_task.FourMTask | tokenizer_task.TokenizerTask | transfer_task.TransferTask
Batches = Callable[..., Generator[Any, None, None]]  # as `Run.batches` says


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What a config describes.

    Attributes:
      task: what is trained.
      specs: modalities of the trunk, in the order of its indices; empty for a tokenizer.
      init: what the run starts from; None: from scratch.
      mesh: sizes of the mesh axes.
      batches: first batch number and log of left-out records (None: a log of its own) -> endless
        iterator of the host batches of this process on a `mesh` (None: of all devices, as the
        config says); with `ahead=False`, for one batch or two, without the threads and processes of
        the config, whose start takes seconds.
    """

    task: Task
    specs: tuple[ModalitySpec, ...]
    init: init.Settings | None
    mesh: dict[str, int]
    batches: Batches


def build(config: ml_collections.ConfigDict) -> Run:
    """Build everything that `config` describes, and check all of it before any step.

    Raises:
      ValueError: an unknown or missing key, or a value that its owner refuses.
    """
    task = make_task(config)
    specs: tuple[ModalitySpec, ...] = ()
    if isinstance(task, fourm_task.FourMTask):
        specs, batches = task.model.modalities, _token_batches(config, task)
    elif isinstance(task, transfer_task.TransferTask):
        specs, batches = task.model.modalities, _labelled_batches(config, task)
    else:
        batches = _raw_batches(config, task)
    return Run(
        task=task,
        specs=specs,
        init=init_settings(config),
        mesh=_arguments(config, "mesh", mesh_lib.make_mesh, except_names=("devices",)),
        batches=batches,
    )


def make_task(config: ml_collections.ConfigDict) -> Task:
    """What is trained; checks all of `config` that can be checked before its data exist.

    Raises:
      ValueError: as `build`, but for the data.
    """
    check(config)
    optimizer_settings = settings(config)
    optimizer.make_schedule(optimizer_settings, config.num_steps)
    if config.task != "fourm" and optimizer_settings.accumulate_steps > 1:
        raise ValueError(
            f"optimizer.accumulate_steps is for trunks; a {config.task} takes whole batches"
        )
    if config.task == "tokenizer":
        return make_tokenizer_task(config)
    return transfer_config.make_task(config) if config.task == "transfer" else _fourm(config)


def transfer_reader(
    config: ml_collections.ConfigDict, task: transfer_task.TransferTask, split: str
) -> transfer_data.LabelledTokens:
    """The labelled records of a split, read and checked.

    Raises:
      ValueError: as `transfer_data.open_reader`.
    """
    return transfer_config.open_reader(config, task, _datasets(config), split)


def make_tokenizer_task(config: ml_collections.ConfigDict) -> tokenizer_task.TokenizerTask:
    """The tokenizer of a config of task "tokenizer".

    Raises:
      ValueError: an unknown key or family, or arguments that the family or its card refuses.
    """
    if settings(config).accumulate_steps > 1:
        raise ValueError(
            "optimizer.accumulate_steps is for trunks; a tokenizer takes whole batches"
        )
    group = config_lib.check_group(
        config.tokenizer, "tokenizer", ("family", "name", "source_field", "arguments")
    )
    arguments = config_lib.plain(config.tokenizer.arguments)
    with errors.described_by("config.tokenizer"):
        card.check_arguments(arguments, "arguments")  # else nobody could read what is saved
        module = base.build(group["family"], arguments)
        base.abstract_variables(module)  # parts check their fields as they are set up
    return tokenizer_task.TokenizerTask(module=module, source_field=group["source_field"])


def check(config: ml_collections.ConfigDict) -> None:
    """Check the keys of the top level and the numbers there.

    Raises:
      ValueError: an unknown, missing or misplaced key; a number out of range.
    """
    for name, value in config_lib.flatten(config).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"config key {name!r} is {value}, allowed: finite numbers")
    if "task" not in config:
        held = ", ".join(sorted(config))
        raise ValueError(f"no config of a training: it has no key 'task' ({held})")
    task = config.task
    if task not in TASK_KEYS:
        raise ValueError(errors.unknown_value("task", str(task), TASK_KEYS))
    keys = COMMON_KEYS + TASK_KEYS[task]
    weights = ("loss_weights", "z_loss") if task == "fourm" else ()
    config_lib.check_group(config, "", (*keys, *OPTIONAL_KEYS, *NEWER, *READING, *weights))
    missing = [key for key in keys if key not in config]
    if missing:
        raise ValueError(f"config of task {task!r} lacks the keys {missing}")
    for key, least in {**SMALLEST, **READING}.items():
        if config.get(key, least) < least:
            raise ValueError(f"config key {key!r} is {config[key]}, must be at least {least}")
    for key in NEWER:
        if option(config, key) < 0:
            raise ValueError(f"config key {key!r} is {option(config, key)}, must be at least 0")
    if config.get("evals") and task != "fourm":
        raise ValueError(f"evals {sorted(config.evals)} are for trunks, this is a {task!r}")
    best.check(config)
    rng.check_seed(config.seed)


def eval_periods(config: ml_collections.ConfigDict) -> tuple[int, ...]:
    """Every how many steps something is evaluated, 0 where only after the last one."""
    evals = config.get("evals") or {}
    return (config.eval_every, *(int(one.get("every", 0)) for one in evals.values()))


def init_settings(config: ml_collections.ConfigDict) -> init.Settings | None:
    """What a config starts from; None where it says nothing.

    Raises:
      ValueError: an unknown key, no source, or a regex that is none.
    """
    if not config.get("init"):
        return None
    found = config_lib.fields_of(config, "init", init.Settings)
    return init.Settings(**{name: config_lib.plain(value) for name, value in found.items()})


def option(config: ml_collections.ConfigDict, key: str) -> float:
    """The value of one of `NEWER`."""
    return config.get(key, NEWER[key])


def make_mixture(config: ml_collections.ConfigDict) -> mixture.Mixture:
    """Masking parameters of all data sets of a config, in their order.

    A mixture may speak of more modalities of the family than this model has, so that one data set
    config serves models of any subset.
    """
    specs = from_config.resolve_specs(config)
    known = {spec.name for spec in registry.FAMILIES[config.modalities.family]}
    known |= from_config.added_of(config).keys()
    unused = known - {spec.name for spec in specs}

    def used(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: part for name, part in value.items() if name not in unused}

    groups = _datasets(config, needs=("mixture",))
    return mixture.make_mixture(
        specs, [{key: used(v) for key, v in group["mixture"].items()} for group in groups]
    )


def make_datasets(config: ml_collections.ConfigDict, split: str) -> tuple[sources.Dataset, ...]:
    """Open all data sets of a config."""
    groups = _datasets(config)
    opened = sources.make_datasets(groups, split)
    if not any(group["channels"] for group in groups):
        return opened
    specs = from_config.resolve_specs(config) if "modalities" in config else ()
    return tuple(
        channels.pick(dataset, group["channels"], specs)
        for dataset, group in zip(opened, groups, strict=True)
    )


def _datasets(
    config: ml_collections.ConfigDict, needs: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Checked configs of the data sets, as plain dicts."""
    if not isinstance(config.data, list | tuple) or not config.data:
        raise ValueError(f"config key 'data' is {config.data!r}, expected a list of data sets")
    groups = [config_lib.plain(dataset) for dataset in config.data]
    for index, group in enumerate(groups):
        config_lib.check_group(group, f"data[{index}]", DATASET_KEYS)
        missing = [name for name in ("name", "source", *needs) if name not in group]
        if missing:
            raise ValueError(f"config of data set {index} lacks the keys {missing}")
    defaults: dict[str, Any] = {"arguments": {}, "fields": {}, "channels": {}, "weight": 1.0}
    return [{**defaults, **group} for group in groups]


def _fourm(config: ml_collections.ConfigDict) -> fourm_task.FourMTask:
    own = ("model", "mixture", "loss_name", "loss_weights", "z_loss", "accumulate_steps")
    task = fourm_task.FourMTask(
        model=from_config.make_model(config),
        mixture=make_mixture(config),
        loss_name=config.loss,
        loss_weights=config_lib.plain(config.get("loss_weights", {})),
        z_loss=config.get("z_loss", 0.0),
        accumulate_steps=settings(config).accumulate_steps,
        **config_lib.fields_of(config, "masking", fourm_task.FourMTask, except_names=own),
    )
    if config.batch_size % task.accumulate_steps:
        raise ValueError(
            f"batch_size {config.batch_size} is not divisible by optimizer.accumulate_steps "
            f"{task.accumulate_steps}"
        )
    if config.batch_size % task.maskings_per_record:
        raise ValueError(
            f"batch_size {config.batch_size} is not divisible by masking.maskings_per_record "
            f"{task.maskings_per_record}: the batch counts samples, each record gives that many"
        )
    return task


def _token_batches(config: ml_collections.ConfigDict, task: fourm_task.FourMTask) -> Batches:
    specs, datasets = task.model.modalities, make_datasets(config, "train")
    sources.check(datasets, specs)
    for name in sources.in_no_record(datasets, specs):
        progress.announce(f"no record of the training data has {name!r}: nothing of it is learned")
    for name, mixed in sources.of_several_tokenizers(datasets, specs).items():
        progress.announce(f"{name!r} has ids of different tokenizers in the data sets {mixed}")
    records = config.batch_size // task.maskings_per_record

    return _batches(functools.partial(pipeline.make_batches, datasets, specs), config, records)


def abstract_batch(config: ml_collections.ConfigDict, mesh: Mesh) -> Batch:
    """Shapes, types and shardings of a batch of a trunk; needs no data.

    Raises:
      ValueError: a config of something else than a trunk, or records that do not divide over the
        mesh.
    """
    if config.task != "fourm":
        raise ValueError(f"a batch of task {config.task!r} is known from its data alone")
    num_records = config.batch_size // config.masking.maskings_per_record
    layout = sharding.batch_sharding(mesh, num_records)
    if layout.is_fully_replicated and mesh.size > mesh.shape["tensor"]:
        raise ValueError(
            f"{num_records} records of a batch do not divide over the mesh {dict(mesh.shape)}"
        )
    empty = collate.collate([{}], [{}], [0], from_config.resolve_specs(config))
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((num_records, *x.shape[1:]), x.dtype, sharding=layout), empty
    )


def _raw_batches(config: ml_collections.ConfigDict, task: tokenizer_task.TokenizerTask) -> Batches:
    datasets = make_datasets(config, "train")
    prepare = {task.source_field: task.taken}
    make = functools.partial(
        pipeline.make_raw_batches, datasets, (task.source_field,), prepare=prepare
    )
    return _batches(make, config, config.batch_size)


def _labelled_batches(
    config: ml_collections.ConfigDict, task: transfer_task.TransferTask
) -> Batches:
    reader = transfer_reader(config, task, "train")
    make = functools.partial(pipeline.make_batches_of, reader)
    return _batches(make, config, config.batch_size)


def _batches(
    make: Callable[..., Generator[Any, None, None]], config: ml_collections.ConfigDict, rows: int
) -> Batches:
    """`Run.batches` from a function of `data.pipeline` that knows its data."""
    reading = {key: config[key] for key in READING if key in config}

    def batches(
        start: int,
        left_out: LeftOutLog | None = None,
        *,
        mesh: Mesh | None = None,
        ahead: bool = True,
    ) -> Generator[Any, None, None]:
        index, count = 0, 1
        if jax.process_count() > 1:
            index, count = distributed.part_of_batch(mesh or mesh_lib.make_mesh(**config.mesh))
        return make(
            batch_size=rows,
            seed=config.seed,
            start=start,
            process_index=index,
            process_count=count,
            left_out=left_out or LeftOutLog(config.max_left_out_records),
            **(reading if ahead else READING),
        )

    return batches


def settings(config: ml_collections.ConfigDict) -> optimizer.Settings:
    """Settings of the optimizer of a config."""
    found = config_lib.fields_of(config, "optimizer", optimizer.Settings)
    return optimizer.Settings(**{name: config_lib.plain(value) for name, value in found.items()})


def _arguments(
    config: ml_collections.ConfigDict,
    group: str,
    owner: Callable[..., Any],
    except_names: tuple[str, ...],
) -> dict[str, Any]:
    names = [name for name in inspect.signature(owner).parameters if name not in except_names]
    return config_lib.check_group(config[group], group, names)
