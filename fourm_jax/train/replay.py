"""One step of a run once more, from its checkpoint: the loss, and which arrays are not finite."""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from etils import epath

from fourm_jax.models import trained
from fourm_jax.parallel import distributed
from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.train import checkpoint, metrics, program, run_config
from fourm_jax.train.state import TrainState
from fourm_jax.utils import io, progress, rng, tree


def replay(
    workdir: epath.PathLike,
    step: int,
    *,
    devices: Sequence[jax.Device] | None = None,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Repeat the steps from the last checkpoint before `step` and look into batch number `step`.

    The batch, its masks and the parameters are those of the run: bit for bit on the same devices,
    to the last digits on others of any number. Nothing is written.

    Args:
      devices: default all.
      show_progress: draw a bar over the steps that are repeated.

    Returns:
      {"step", "from": step of the checkpoint, "loss", "grad_norm", "metrics": {name: value},
      "not_finite": {"batch" | "params" | "grads": paths of arrays that are not finite}}.

    Raises:
      ValueError: no sound checkpoint of that step or before, a step beyond the run's last one, or
        another program than the run's.
    """
    folder = io.absolute(workdir) / trained.CHECKPOINTS
    if not folder.is_dir():
        raise ValueError(f"no checkpoint in {folder}")
    with trained.open_to_read(folder) as manager:
        steps = [one for one in manager.all_steps() if one <= step]
        if not steps:
            kept = sorted(manager.all_steps())
            raise ValueError(f"no checkpoint of step {step} or before in {folder}, kept: {kept}")
        start, description = trained.read_newest(
            manager,
            folder,
            lambda one: (one, trained.read_description(manager, one)),
            latest=step,
        )
        config = ml_collections.ConfigDict(description.config).lock()
        num_steps = _num_steps(folder.parent, config)
        if step > num_steps:
            raise ValueError(f"step {step}, allowed: 0..{num_steps}, the steps of the run")
        run = run_config.build(config)
        mesh = _mesh(run.mesh, devices)
        with contextlib.closing(run.batches(start, mesh=mesh)) as batches:
            batch = distributed.put_batch(next(batches), mesh)
            parts = program.make(config, run.task, mesh, batch)
            state = checkpoint.read_state(manager, start, parts.abstract)
            with jax.set_mesh(mesh):
                steps_again = range(start, step)
                for _ in progress.track(
                    steps_again, label="replay", unit="step", enabled=show_progress
                ):
                    state, _ = parts.train_step(state, batch, parts.root)
                    batch = distributed.put_batch(next(batches), mesh)
                found = _look(run, config.seed, state, batch)
    return {"step": step, "from": start, **found}


def _num_steps(workdir: epath.Path, config: ml_collections.ConfigDict) -> int:
    """How long the run is by now: it may have been made longer since the checkpoint."""
    path = workdir / "config.json"
    return int(io.read_json(path)["num_steps"] if path.exists() else config.num_steps)


def _mesh(sizes: dict[str, int], devices: Sequence[jax.Device] | None) -> jax.sharding.Mesh:
    """The mesh of the run, or, where it had other devices, their parameters cut over these."""
    try:
        return mesh_lib.make_mesh(devices=devices, **sizes)
    except ValueError as error:
        progress.announce(f"another mesh than the run's, so last digits may differ: {error}")
        return mesh_lib.make_mesh(devices=devices, data=1, fsdp=-1)


def _look(run: run_config.Run, seed: int, state: TrainState, batch: Any) -> dict[str, Any]:
    """Loss and gradient at a state, with the random numbers of its step."""

    def look(state: TrainState, batch: Any) -> Any:
        key = rng.step_key(jax.random.key(seed), "train", state.step)
        (loss, aux), grads = jax.value_and_grad(run.task.loss, has_aux=True)(
            state.params, state.model_state, batch, key, True
        )
        groups = {"batch": batch, "params": state.params, "grads": grads}
        finite = {name: _finite(group) for name, group in groups.items()}
        return loss, optax.tree.norm(grads), aux.metrics, finite

    # One program: sums over cut arrays that are called one by one wait for each other's devices.
    loss, norm, sums, finite = jax.jit(look)(state, batch)
    return {
        "loss": float(loss),
        "grad_norm": float(norm),
        "metrics": metrics.compute(sums, run.task.labels),
        "not_finite": {
            group: [name for name, good in leaves.items() if not good]
            for group, leaves in jax.device_get(finite).items()
        },
    }


def _finite(group: Any) -> dict[str, Any]:
    """By name, whether all values of an array of floats are finite."""
    return {
        name: jnp.isfinite(leaf).all()
        for name, leaf in tree.named_leaves(group).items()
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    }
