"""From `config.transfer` to the task and the labelled records of a transfer."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from fourm_jax.models import from_config
from fourm_jax.models.fourm import FourM
from fourm_jax.train import transfer_data
from fourm_jax.train.transfer_task import Labels, TransferTask, make_head
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

# Keys beside those of `Labels`.
OTHER_KEYS = ("head", "think", "num_train", "num_test", "tokenizers")


def make_task(config: ml_collections.ConfigDict) -> TransferTask:
    """The transfer of a config of task "transfer".

    `transfer.head` is the name of a head and its options; `transfer.think` names inputs that are
    predicted from the others.

    Raises:
      ValueError: an unknown key or head, a value that its owner refuses, or adapters and thinking
        first without a model to start from.
    """
    names = [field.name for field in dataclasses.fields(Labels)]
    group = config_lib.check_group(config.transfer, "transfer", (*names, *OTHER_KEYS))
    labels = Labels(**{name: value for name, value in group.items() if name in names})
    model = from_config.make_model(config)
    think = tuple(group.get("think", ()))
    if (labels.lora_rank or think) and not config.get("init"):
        raise ValueError("transfer.lora_rank and transfer.think need a trained model: init.source")
    head = dict(config_lib.plain(group.get("head", {})))
    if "name" not in head:
        raise ValueError("transfer.head has no name")
    size = model.modalities[0].image_shape[:2]
    return TransferTask(
        model=model,
        head=make_head(head.pop("name"), labels.num_outputs, size, **head),
        labels_of=labels,
        thinker=_thinker(model, think) if think else None,
        anew=config.init.get("reset", "") if config.get("init") else "",
    )


def open_reader(
    config: ml_collections.ConfigDict,
    task: TransferTask,
    groups: Sequence[Mapping[str, Any]],
    split: str,
) -> transfer_data.LabelledTokens:
    """The labelled records of a split, read and checked.

    `transfer.num_train` and `num_test` are how many of each data set are read (0: all), and
    `transfer.tokenizers` a folder of tokenizers for the inputs that records lack.

    Raises:
      ValueError: as `transfer_data.open_reader`.
    """
    group = config.transfer
    return transfer_data.open_reader(
        groups,
        split,
        task.inputs,
        task.labels_of,
        predicted=task.thinker.outputs if task.thinker else (),
        num_records=group.get(f"num_{split}", 0),
        tokenizers=group.get("tokenizers", ""),
        max_left_out_records=config.get("max_left_out_records", 0),
    )


def _thinker(model: FourM, names: tuple[str, ...]) -> FourM:
    """The trunk that predicts some inputs of `model` from the others."""
    for name in names:
        if name not in model.inputs[1:]:
            raise ValueError(errors.unknown_value("transfer.think", name, model.inputs[1:]))
    by_name = {spec.name: spec for spec in model.modalities}
    for name in names:
        if by_name[name].kind not in ("grid", "global"):
            raise ValueError(f"transfer.think: {name!r} is predicted in one pass, grids alone can")
    seen = tuple(name for name in model.inputs if name not in names)
    return dataclasses.replace(model, inputs=seen, outputs=names, drop_path=0.0)
