"""A trained model read back from the work directory of its run: no optimizer, no data."""

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath

from fourm_jax.models import from_config, weights
from fourm_jax.parallel import distributed
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import digests, errors, io, plain_data, progress, upgrades
from fourm_jax.utils.run_folder import CHECKPOINTS, TRUNK

STATE, DESCRIPTION = "state", "description"  # items of one checkpoint
DESCRIPTION_RULES = {
    "config": plain_data.DICT,
    "modalities": plain_data.dict_of(plain_data.DICT),
}
Result = TypeVar("Result")


def absolute_path(path: str, current: str) -> str:
    """A path as seen from the root, without ".."; one of an object store is so already."""
    if io.is_remote(path):
        return path
    return os.path.normpath(pathlib.Path(current) / pathlib.Path(path).expanduser())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run stood: with it a path of its config means the same wherever the run is now.

    Attributes:
      workdir: its absolute path.
      current: absolute path of the folder in which the command was given.
    """

    workdir: str
    current: str

    def leads_to(self, path: str) -> set[str]:
        """A path of the config as seen from the root and as seen from the work directory."""
        absolute = absolute_path(path, self.current)
        if io.is_remote(absolute) or io.is_remote(self.workdir):
            return {absolute}
        return {absolute, os.path.relpath(absolute, self.workdir)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """What a checkpoint says about itself, as JSON beside the arrays.

    Attributes:
      config: `utils.config.to_json` of the run.
      modalities: {name: {field: value}} of the modality specs, in the order of the model; empty
        for a tokenizer.
      place: where paths in `config` lead to; None in a checkpoint of an older version.
    """

    config: dict[str, Any]
    modalities: dict[str, dict[str, Any]]
    place: Place | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """Parameters to use, and what they belong to.

    Attributes:
      step: of the checkpoint.
      params: the running average where the run keeps one, else the last parameters.
      model_state: other variables, such as codebooks.
      description: config and modalities of the run.
    """

    step: int
    params: Mapping[str, Any]
    model_state: Mapping[str, Any]
    description: Description


def load(workdir: epath.PathLike) -> Trained:
    """Read the newest sound parameters of a work directory onto one device.

    Raises:
      ValueError: there is no checkpoint, or all are damaged.
    """
    folder = io.absolute(workdir) / CHECKPOINTS
    if not folder.is_dir():
        raise ValueError(f"no checkpoint in {folder}")
    with open_to_read(folder) as manager:
        if not manager.all_steps():
            raise ValueError(f"no checkpoint in {folder}")
        return read_newest(manager, folder, lambda step: _read(manager, step))


def read_weights(source: str) -> weights.Weights:
    """The newest parameters of a run, for another to start from: a run folder or one training.

    Raises:
      ValueError: as `load`.
    """
    workdir = epath.Path(source).expanduser()
    if (workdir / TRUNK).is_dir():
        workdir /= TRUNK
    found = load(workdir)
    config = config_lib.from_json(found.description.config)
    if config.task == "tokenizer":
        return weights.of_variables({"params": found.params, **found.model_state})
    return weights.of_trunk(from_config.make_model(config), found.params)


class MismatchError(ValueError):
    """A sound checkpoint of something else."""


def read_newest(
    manager: ocp.CheckpointManager,
    folder: epath.Path,
    read: Callable[[int], Result],
    num_damaged: dict[int, int] | None = None,
    *,
    latest: int | None = None,
) -> Result:
    """Return `read(step)` of the newest sound checkpoint; a line names what is passed over.

    Nothing is renamed or removed. A checkpoint is damaged when its files are not what was written;
    one without digests, by an older version, is damaged when its content cannot be read.

    Args:
      num_damaged: {step: number of damaged files} that is known from an earlier call; is added to.
      latest: step of the newest that is looked at.

    Raises:
      ValueError: all of them are damaged.
      MismatchError: `read` says that it is a checkpoint of something else.
      OSError: files are there and cannot be read at the moment, which says nothing about them.
    """
    steps = [step for step in manager.all_steps() if latest is None or step <= latest]
    steps = sorted(steps, reverse=True)
    num_damaged = {} if num_damaged is None else num_damaged
    for step in steps:
        path = folder / str(step)
        if step not in num_damaged:
            count = functools.partial(_num_damaged, path)
            num_damaged[step] = distributed.decided_by_first(count)
        if num_damaged[step] > 0:
            damage = f"{num_damaged[step]} of its files are not what was written"
            if jax.process_index() == 0:
                damage = digests.describe_damage(path, digests.damaged(path) or [])
            _pass_over(path, damage)
            continue
        try:
            return read(step)
        except MismatchError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise
            if num_damaged[step] == 0:
                raise OSError(
                    f"checkpoint {path} is undamaged, yet: {_first_line(error)}"
                ) from error
            _pass_over(path, _first_line(error))
    raise ValueError(
        f"none of the checkpoints {sorted(steps)} in {folder} can be read; nothing was changed: "
        "restore them from a copy, or remove the folder to start again"
    )


def open_manager(
    folder: epath.Path, options: ocp.CheckpointManagerOptions
) -> ocp.CheckpointManager:
    """The manager of a folder of checkpoints, each a state and a description."""
    handlers = {STATE: ocp.PyTreeCheckpointHandler(), DESCRIPTION: ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


def open_to_read(folder: epath.Path) -> ocp.CheckpointManager:
    """The same of a folder in which nothing is written."""
    options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
    logger = logging.getLogger("absl")
    logger.addFilter(_is_news)
    try:
        return open_manager(folder, options)
    finally:
        logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a message of orbax says more than that the folder is read, as it was asked to be."""
    return not record.getMessage().startswith("Given directory is read only")


def read_description(manager: ocp.CheckpointManager, step: int) -> Description:
    """The description of one checkpoint, with today's names of keys.

    Raises:
      ValueError: it is none.
    """
    wanted = ocp.args.Composite(**{DESCRIPTION: ocp.args.JsonRestore()})
    stored = manager.restore(step, args=wanted)[DESCRIPTION]
    with errors.described_by(f"{manager.directory}/{step}: no description of a run"):
        plain_data.check(stored, DESCRIPTION_RULES, "it", required=DESCRIPTION_RULES)
        io.check_depth(stored)
    return Description(
        config=upgrades.upgrade_config(stored["config"]),
        modalities=upgrades.upgrade_modalities(stored["modalities"]),
        place=place_of(stored),
    )


def place_of(stored: Mapping[str, Any]) -> Place | None:
    """The place that a stored description or config names; None where an older version wrote it."""
    found = stored.get("place")
    names = {field.name for field in dataclasses.fields(Place)}
    if not isinstance(found, dict) or found.keys() != names:
        return None
    return Place(**found) if all(isinstance(value, str) for value in found.values()) else None


def read_arrays(manager: ocp.CheckpointManager, step: int, abstract: Any) -> Any:
    """Arrays of `abstract` (a whole state, or some of its fields) in its shardings."""
    arguments = ocp.args.PyTreeRestore(
        abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=True,
    )
    return manager.restore(step, args=ocp.args.Composite(**{STATE: arguments}))[STATE]


def _num_damaged(path: epath.Path) -> int:
    """Number of damaged files of a checkpoint; -1 where no digests tell."""
    damaged = digests.damaged(path)
    return -1 if damaged is None else len(damaged)


def _pass_over(path: epath.Path, reason: str) -> None:
    if jax.process_index() == 0:
        progress.announce(f"checkpoint {path} cannot be read ({reason}); trying the one before")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _read(manager: ocp.CheckpointManager, step: int) -> Trained:
    stored = manager.item_metadata(step)[STATE]
    params = "params" if stored["ema_params"] is None else "ema_params"
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
        {name: stored[name] for name in (params, "model_state")},
    )
    restored = read_arrays(manager, step, wanted)
    return Trained(
        step=step,
        params=restored[params],
        model_state=restored["model_state"],
        description=read_description(manager, step),
    )
