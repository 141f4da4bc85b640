"""The device mesh: three named axes whose sizes come from the config."""

import math
from collections.abc import Sequence

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "tensor")


def make_mesh(
    *, data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Arrange the devices as (data, fsdp, tensor); one size may be -1, which takes the rest.

    Axes are `AxisType.Auto`: the compiler propagates shardings from the state and the batch
    (explicit axes refuse concatenations and gathers from sharded tables). Of several TPU slices
    each holds a part of the data axis: the network between them is the slowest.

    Args:
      data: replicas of the parameters; each sees its part of the batch.
      fsdp: parts that parameters and moments are cut into; each also sees its part of the batch.
      tensor: parts of the wide matrices; its devices share their part of the batch.
      devices: default all devices of all processes.

    Raises:
      ValueError: a size below 1 (other than one -1), a product that is not the device count, or
        replicas that do not divide over the slices.
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
    types = (AxisType.Auto,) * len(AXES)
    num_slices = len({getattr(device, "slice_index", 0) for device in devices})
    if num_slices == 1:
        return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=types, devices=devices)
    if sizes["data"] % num_slices:
        raise ValueError(
            f"mesh {sizes} on {num_slices} slices: data must be a multiple of {num_slices}: only "
            "gradients of replicas go over the network between slices"
        )
    inside = (sizes["data"] // num_slices, sizes["fsdp"], sizes["tensor"])
    grid = mesh_utils.create_hybrid_device_mesh(inside, (num_slices, 1, 1), devices)
    return Mesh(grid, AXES, axis_types=types)
