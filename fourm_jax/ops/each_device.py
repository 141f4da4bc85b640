"""Kernels on a mesh: every device runs them on its own samples, and its own heads or channels.

XLA cuts its own operations over a mesh. What a kernel of ours does it does not know: of arrays that
are divided it would put the parts together on every device. So such a kernel runs inside of
`jax.shard_map`, where every device sees its own part, and what does not divide is left to XLA.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

SAMPLES = ("data", "fsdp")  # mesh axes that the samples of a batch are divided over
CHANNELS = ("tensor",)  # those of heads and of hidden channels
WHOLE = P()  # of what every device has


def num_parts(size: int, names: tuple[str, ...] = SAMPLES) -> int:
    """How many devices divide an axis of `size`; 0: kernels cannot be run on parts of it.

    The mesh in use counts; a step compiled for other machines has theirs. Without one, arrays may
    lie on any device that there is. Inside of a `jax.shard_map` an axis is a device's own already.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return int(jax.device_count() == 1)
    if mesh.size == 1 or _is_own(mesh):
        return 1
    if AxisType.Manual in mesh.axis_types or not set(names) <= set(mesh.axis_names):
        return 0
    parts = math.prod(mesh.shape[name] for name in names)
    return parts if size % parts == 0 else 0


def run(function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """The function, of what each device has of its arguments where there are several devices.

    Specs are those of `jax.shard_map`, e.g. `P(SAMPLES)`; axes that they name must divide
    (`num_parts`). Devices that have the same arguments must give the same results.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or _is_own(mesh):
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _is_own(mesh: jax.sharding.AbstractMesh) -> bool:
    """Whether this is traced inside of a `jax.shard_map` over all axes."""
    return set(mesh.axis_types) == {AxisType.Manual}
