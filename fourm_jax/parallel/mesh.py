"""The device mesh: three named axes whose sizes come from the config."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "tensor")


def make_mesh(
    *, data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Arrange the devices as (data, fsdp, tensor); one size may be -1, which takes the rest.

    Axes are `AxisType.Auto`: the compiler propagates shardings from the state and the batch
    (explicit axes refuse concatenations and gathers from sharded tables).

    Args:
      data: replicas of the parameters; each sees its part of the batch.
      fsdp: parts that parameters and moments are cut into; each also sees its part of the batch.
      tensor: parts of the wide matrices; its devices share their part of the batch.
      devices: default all devices of all processes.

    Raises:
      ValueError: a size below 1 (other than one -1), or a product that is not the device count.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    open_axes = [name for name, size in sizes.items() if size == -1]
    wrong = {name: size for name, size in sizes.items() if size < 1 and size != -1}
    if wrong or len(open_axes) > 1:
        raise ValueError(f"mesh {sizes}: sizes must be positive, at most one of them -1 (the rest)")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if open_axes and len(devices) % fixed == 0:
        sizes[open_axes[0]] = len(devices) // fixed
    if math.prod(sizes.values()) != len(devices):
        raise ValueError(
            f"mesh {sizes} does not cover the {len(devices)} {devices[0].platform} device(s): "
            "the product of the sizes must equal their number; -1 stands for the rest"
        )
    return jax.make_mesh(
        tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices
    )
