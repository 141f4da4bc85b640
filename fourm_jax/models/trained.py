"""A trained model read back from the work directory of its run: no optimizer, no data."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from fourm_jax.utils import upgrades
from fourm_jax.utils.run_folder import CHECKPOINTS

STATE, DESCRIPTION = "state", "description"  # items of one checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """What a checkpoint says about itself, as JSON beside the arrays.

    Attributes:
      config: `utils.config.to_json` of the run.
      modalities: {name: {field: value}} of the modality specs, in the order of the model; empty
        for a tokenizer.
    """

    config: dict[str, Any]
    modalities: dict[str, dict[str, Any]]


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
    """Read the newest parameters of a work directory onto one device.

    Raises:
      ValueError: there is no checkpoint.
    """
    folder = epath.Path(workdir).expanduser().absolute() / CHECKPOINTS
    if not folder.is_dir():
        raise ValueError(f"no checkpoint in {folder}")
    with open_manager(folder, ocp.CheckpointManagerOptions(read_only=True)) as manager:
        steps = manager.all_steps()
        if not steps:
            raise ValueError(f"no checkpoint in {folder}")
        return _read(manager, max(steps))


def open_manager(
    folder: epath.Path, options: ocp.CheckpointManagerOptions
) -> ocp.CheckpointManager:
    """The manager of a folder of checkpoints, each a state and a description."""
    handlers = {STATE: ocp.PyTreeCheckpointHandler(), DESCRIPTION: ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


def read_description(manager: ocp.CheckpointManager, step: int) -> Description:
    """The description of one checkpoint, with today's names of keys."""
    wanted = ocp.args.Composite(**{DESCRIPTION: ocp.args.JsonRestore()})
    stored = manager.restore(step, args=wanted)[DESCRIPTION]
    return Description(
        config=upgrades.upgrade_config(stored["config"]),
        modalities=upgrades.upgrade_modalities(stored["modalities"]),
    )


def read_arrays(manager: ocp.CheckpointManager, step: int, abstract: Any) -> Any:
    """Arrays of `abstract` (a whole state, or some of its fields) in its shardings."""
    arguments = ocp.args.PyTreeRestore(
        abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=True,
    )
    return manager.restore(step, args=ocp.args.Composite(**{STATE: arguments}))[STATE]


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
