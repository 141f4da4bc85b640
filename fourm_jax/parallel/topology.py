"""Devices of slices that are not here, for programs that are compiled ahead of time.

The TPU compiler comes with libtpu and runs without a TPU. There is none for GPUs: their memory is
estimated with the same program, compiled for as many chips of a TPU with more memory.
"""

import dataclasses
import math
import os
import re
from typing import Any

import jax

from fourm_jax.utils import errors, extras

GIB = 2**30
# Memory per chip that a program may use, as the compiler states it.
TPUS = {"v4": 32 * GIB, "v5e": 16 * GIB, "v5p": 95 * GIB, "v6e": 32 * GIB}
# What a GPU holds, less what CUDA and its allocator keep; a program of one is compiled for v5p.
GPUS = {"a100": 74 * GIB, "h100": 74 * GIB, "h200": 130 * GIB}
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # no metadata server outside of the cloud
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is locked: there is no device
}
_GPU_NAME = re.compile(r"gpu:(?P<count>\d+)x(?P<kind>\w+)")
_TPU_NAME = re.compile(r"(?P<kind>v\w+):(?P<shape>\d+(x\d+){1,2})(\*(?P<slices>\d+))?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """Devices to compile for.

    Attributes:
      name: as the user wrote it, e.g. "v5e:16x16" or "gpu:8xh100".
      devices: of the TPU compiler.
      memory_bytes: per device.
      is_estimate: whether `devices` stand for others.
    """

    name: str
    devices: list[jax.Device]
    memory_bytes: int
    is_estimate: bool


def find(name: str) -> Topology:
    """The devices of a slice, e.g. "v5e:16x16", "v5p:4x4x4", "v5e:16x16*2", "gpu:8xh100".

    Raises:
      ValueError: a name of no slice, or libtpu is not installed.
    """
    if match := _GPU_NAME.fullmatch(name):
        if match["kind"] not in GPUS:
            raise ValueError(errors.unknown_value("GPU", match["kind"], GPUS))
        count = int(match["count"])
        side = max(2, math.ceil(round(count ** (1 / 3), 6)))
        devices = _tpus(f"v5p:{side}x{side}x{side}")
        return Topology(
            name=name,
            devices=devices[:count],
            memory_bytes=GPUS[match["kind"]],
            is_estimate=True,
        )
    match = _TPU_NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"topology {name!r}, allowed: KIND:SHAPE as v5e:16x16 or v5p:4x4x4 with a KIND of "
            f"{[*TPUS]}, several slices as v5e:16x16*2, or gpu:COUNTxKIND as gpu:8xh100 with a "
            f"KIND of {[*GPUS]}"
        )
    if match["kind"] not in TPUS:
        raise ValueError(errors.unknown_value("TPU", match["kind"], TPUS))
    slices = int(match["slices"] or 1)
    devices, memory = _tpus(name.partition("*")[0], slices), TPUS[match["kind"]]
    return Topology(name=name, devices=devices, memory_bytes=memory, is_estimate=False)


def _tpus(name: str, num_slices: int = 1) -> list[jax.Device]:
    extras.require("libtpu", extra="tpu", who="compiling for a TPU that is not here")
    from jax.experimental import topologies

    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    options: dict[str, Any] = {"platform": "tpu"}
    options |= {"num_slices": num_slices} if num_slices > 1 else {}
    try:
        return list(topologies.get_topology_desc(name, **options).devices)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise ValueError(
            f"topology {name!r}: the compiler knows no such slice: {reason}"
        ) from error
