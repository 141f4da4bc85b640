"""What a run may change when it is continued, and whether a work directory holds the same run."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
from etils import epath

from fourm_jax.models import trained
from fourm_jax.train import checkpoint, run_config, schedules
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import plain_data, upgrades

# Config keys that a continued run may change, as they change neither data nor mathematics;
# `num_steps` may too, while the schedule has not yet begun to depend on it.
MAY_CHANGE = (
    "log_every",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep_checkpoints",
    *run_config.EVALUATION_KEYS,
    "mesh.",
    "model.remat",
    "model.scan_unroll",
    "model.attention",
    "optimizer.accumulate_steps",
    "optimizer.moment_dtype",  # a checkpoint is cast as it is read
    "max_left_out_records",
    "num_threads",
    "num_workers",
)


def check_same_config(
    before: Mapping[str, Any], config: ml_collections.ConfigDict, where: epath.PathLike
) -> None:
    """Refuse a finished run of another config; `before` is the config.json in its workdir `where`.

    Raises:
      ValueError: names the first keys that differ, with both values.
    """
    plain_data.check(before, {}, where)
    stored = {key: value for key, value in before.items() if key != "place"}
    found = checkpoint.Description(
        config=upgrades.upgrade_config(stored), modalities={}, place=trained.place_of(before)
    )
    expected = checkpoint.Description(
        config=config_lib.to_json(config), modalities={}, place=place(where)
    )
    checkpoint.check_same_run(found, expected, may_change=MAY_CHANGE, where=str(where))


def place(workdir: epath.PathLike) -> trained.Place:
    """Where a run stands now."""
    here = str(pathlib.Path.cwd())
    return trained.Place(workdir=trained.absolute_path(os.fspath(workdir), here), current=here)


def check_workdir(
    saver: checkpoint.Checkpointer, description: checkpoint.Description, workdir: epath.Path
) -> None:
    """Refuse a workdir whose checkpoint belongs to another run, or is beyond the steps of this one.

    Raises:
      ValueError: names the first keys that differ, with both values.
    """
    found = saver.describe()
    if found is None:
        return
    step_found, before = found
    may_change: tuple[str, ...] = MAY_CHANGE
    if all(
        schedules.extendable(
            one["optimizer"]["schedule"],
            num_steps=one["num_steps"],
            cooldown_steps=one["optimizer"].get("cooldown_steps", 0),
            step=step_found,
        )
        for one in (before.config, description.config)  # a longer run, or a shorter one
    ):
        may_change += ("num_steps",)
    checkpoint.check_same_run(before, description, may_change=may_change, where=str(workdir))
