"""Several processes as one machine: start, agree on stopping, bring batches onto the mesh."""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from fourm_jax.parallel import sharding

COORDINATOR = "FOURM_COORDINATOR"
NUM_PROCESSES = "FOURM_NUM_PROCESSES"
PROCESS_ID = "FOURM_PROCESS_ID"
TIMEOUT = "FOURM_START_TIMEOUT"


def start(*, cluster: bool = False, timeout_seconds: int | None = None) -> None:
    """Join the other processes of a run; call it before anything else touches JAX.

    One process starts alone unless the environment says otherwise: FOURM_COORDINATOR=host:port,
    FOURM_NUM_PROCESSES and FOURM_PROCESS_ID (all three), or `cluster` on machines that JAX knows
    how to read (Cloud TPU, SLURM, …). FOURM_START_TIMEOUT gives the seconds to wait for the rest
    (default 1,800: large slices start slowly). The port must be open between the hosts.

    Raises:
      ValueError: only some of the three variables are set, or they are not numbers.
      ConnectionError: the others did not appear in time.
    """
    names = (COORDINATOR, NUM_PROCESSES, PROCESS_ID)
    given = {name: os.environ[name] for name in names if name in os.environ}
    if given and len(given) < len(names):
        raise ValueError(f"environment sets only {sorted(given)}; a run needs all of {names}")
    if not given and not cluster:
        return
    timeout = timeout_seconds or _number(TIMEOUT, "1800")
    arguments: dict[str, Any] = {"initialization_timeout": timeout}
    if given:
        arguments["coordinator_address"] = given[COORDINATOR]
        arguments["num_processes"] = _number(NUM_PROCESSES)
        arguments["process_id"] = _number(PROCESS_ID)
    try:
        jax.distributed.initialize(**arguments)
    except Exception as error:
        raise ConnectionError(
            f"process {given.get(PROCESS_ID, '?')} of {given.get(NUM_PROCESSES, '?')} could not "
            f"join {given.get(COORDINATOR, 'the cluster')} within {timeout} s; is the same command "
            "running on every host, and is the coordinator's port open?"
        ) from error


def _number(name: str, default: str = "") -> int:
    """Value of an environment variable that holds a number."""
    value = os.environ.get(name, default)
    if not value.isdecimal():
        raise ValueError(f"environment variable {name}={value!r}, allowed: a number")
    return int(value)


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Arrays [b_local, ...] of this process -> global arrays, samples divided over the mesh.

    Raises:
      ValueError: several processes, and samples that do not divide over (data, fsdp).
    """
    num_local = jax.tree.leaves(batch)[0].shape[0]
    layout = sharding.batch_sharding(mesh, num_local * jax.process_count())
    if jax.process_count() == 1:
        return jax.device_put(batch, layout)
    if layout.is_fully_replicated:
        raise ValueError(
            f"a batch of {num_local * jax.process_count()} records does not divide over the mesh "
            f"{dict(mesh.shape)}: with several processes it must (data × fsdp)"
        )
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(layout, np.asarray(x)), batch
    )


def decided_by_first(decide: Callable[[], int]) -> int:
    """Return `decide()` of the first process on every process."""
    if jax.process_count() == 1:
        return decide()
    value = decide() if jax.process_index() == 0 else 0
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def should_stop(requested: bool, step: int) -> bool:
    """Whether all processes stop after this step; one process decides alone.

    Several processes use JAX's preemption service, which hears SIGTERM on any of them and picks a
    step that all reach.
    """
    if jax.process_count() == 1:
        return requested
    return multihost_utils.reached_preemption_sync_point(step)
