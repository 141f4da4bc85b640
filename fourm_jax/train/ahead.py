"""The train step compiled for devices that are not here: does it fit, and what does it send."""

import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from fourm_jax.parallel import (
    collectives,
    hlo,
    planned_memory,
    roofline,
    topology,
    tpu_cycles,
)
from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.train import fourm_task, program, run_config
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import tree

_DTYPE_BYTES = {"float32": 4, "bfloat16": 2}


def report(config: ml_collections.ConfigDict, place: topology.Topology) -> dict[str, Any]:
    """Compile the step of a trunk and say what it takes; all numbers are per device.

    Bytes: "arguments" are state and batch, the output replaces the state in place, "temporaries"
    include what waits for the backward pass. What is sent is counted by the ring algorithms, beside
    the least that fsdp needs: parameters gathered for the forward and the backward pass, gradients
    scattered, in the type of the computation. The operations and bytes of `two_layers` are the
    compiler's, of the same step with one layer in encoder and decoder and without a loop; so are
    the "cycles" that a TPU is expected to take (`tpu_cycles.report`). On a GPU `setting` is what
    the environment must say for the step to get its memory.

    Raises:
      ValueError: an invalid config, no trunk, or a mesh that does not suit the devices.
    """
    task = _trunk(config)
    mesh = mesh_lib.make_mesh(devices=place.devices, **config.mesh.to_dict())
    watch = time.perf_counter()
    row = _describe(config, task, place, dict(mesh.shape))
    compiled = compile_step(config, mesh)
    row["compile_s"] = round(time.perf_counter() - watch, 1)
    row |= planned_memory.report(compiled, place)
    if isinstance(compiled, planned_memory.TooLarge):
        return row
    parsed = hlo.parse(compiled.as_text())
    found = collectives.read(parsed, mesh.size)
    row["wire_bytes"] = round(sum(one.wire_bytes for one in found))
    row["wire_bytes_of_fsdp"] = _least_wire_bytes(config, task, dict(mesh.shape))
    row["collectives"] = collectives.summary(found)
    row["largest_collectives"] = [
        {"kind": one.kind, "arrays": one.arrays[:4], "count": one.count, "source": one.source[-80:]}
        for one in found[:8]
    ]
    if place.gpu is None:
        return row | {"cycles": tpu_cycles.report(parsed)}
    return row | roofline.report(parsed, place.gpu, found)


def two_layers(config: ml_collections.ConfigDict, place: topology.Topology) -> dict[str, float]:
    """The compiler's count for one layer of each kind, unrolled: of a loop it counts one round.

    For TPUs: the compiler of a GPU does not count.
    """
    one_each = {"model.encoder_depth": 1, "model.decoder_depth": 1}
    mesh = mesh_lib.make_mesh(devices=place.devices, **config.mesh.to_dict())
    compiled = compile_step(config_lib.override(config, one_each), mesh)
    if isinstance(compiled, planned_memory.TooLarge):
        return {}
    costs = compiled.cost_analysis() or {}
    return {"flops": costs.get("flops", 0.0), "bytes_accessed": costs.get("bytes accessed", 0.0)}


def largest_batch(
    config: ml_collections.ConfigDict, place: topology.Topology, tell: Callable[[str], None]
) -> dict[str, Any]:
    """The report of the largest batch that fits, samples per device doubling and halving.

    A batch that fits is known to within a quarter. `tell` gets a line after each that was tried.
    """
    mesh = mesh_lib.make_mesh(devices=place.devices, **config.mesh.to_dict())
    unit = mesh.shape["data"] * mesh.shape["fsdp"] * config.masking.maskings_per_record
    tried: dict[int, dict[str, Any]] = {}

    def fits(count: int) -> bool:
        if count not in tried:
            sized = config_lib.override(config, {"batch_size": count * unit})
            row = tried[count] = report(sized, place)
            tell(
                f"batch {count * unit:,}: {'fits' if row['fits'] else 'does not fit'}, "
                f"{row['bytes'] / topology.GIB:.2f} of {row['memory_bytes'] / topology.GIB:.2f} "
                f"GiB ({row['compile_s']:.0f} s)"
            )
        return bool(tried[count]["fits"])

    count = max(config.batch_size // unit, 1)
    if fits(count):
        while fits(2 * count):
            count *= 2
        low, high = count, 2 * count
    else:
        while count > 1 and not fits(count // 2):
            count //= 2
        low, high = count // 2, count
    while high - low > max(low // 4, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return tried[low or 1] | {"tried": {str(n * unit): tried[n]["fits"] for n in sorted(tried)}}


def compile_step(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> Any:
    """The compiled step on a mesh of any devices, or a `planned_memory.TooLarge`.

    Raises:
      ValueError: see `run_config.abstract_batch`.
    """
    batch = run_config.abstract_batch(config, mesh)
    parts = program.make(config, run_config.make_task(config), mesh, batch)
    train_step: Any = parts.train_step  # jitted
    with jax.set_mesh(mesh):
        lowered = train_step.lower(parts.abstract, batch, parts.root)
    return planned_memory.compile_lowered(lowered)


def _trunk(config: ml_collections.ConfigDict) -> fourm_task.FourMTask:
    task = run_config.make_task(config)
    if not isinstance(task, fourm_task.FourMTask):
        raise ValueError(f"only trunks are compiled ahead of time, this is a {config.task!r}")
    return task


def _describe(
    config: ml_collections.ConfigDict,
    task: fourm_task.FourMTask,
    place: topology.Topology,
    mesh: dict[str, int],
) -> dict[str, Any]:
    num_devices = len(place.devices)
    return {
        "topology": place.name,
        "device": place.devices[0].device_kind,
        "mesh": mesh,
        "batch_size": config.batch_size,
        "samples_per_device": config.batch_size / (mesh["data"] * mesh["fsdp"]),
        "remat": config.model.remat,
        "scan_unroll": config.model.scan_unroll
        or max(config.model.encoder_depth, config.model.decoder_depth),
        "accumulate_steps": run_config.settings(config).accumulate_steps,
        "parameters": _num_parameters(config, task),
        "model_flops": task.flops_per_sample * config.batch_size / num_devices,
        "memory_bytes": place.memory_bytes,
    }


def _num_parameters(config: ml_collections.ConfigDict, task: fourm_task.FourMTask) -> int:
    one = config_lib.override(config, {"mesh": {"data": 1, "fsdp": 1, "tensor": 1}})
    batch = run_config.abstract_batch(one, mesh_lib.make_mesh(devices=jax.devices()[:1]))
    params, _ = jax.eval_shape(task.init, jax.random.key(0), batch)
    return tree.num_elements(params)


def _least_wire_bytes(
    config: ml_collections.ConfigDict, task: fourm_task.FourMTask, mesh: dict[str, int]
) -> int:
    share = (mesh["fsdp"] - 1) / mesh["fsdp"]
    elements = _num_parameters(config, task) / mesh["tensor"]
    return round(3 * elements * _DTYPE_BYTES[config.dtype] * share)
