"""Devices that are not here, for programs that are compiled ahead of time.

The compilers come with libraries that need no device: that of TPUs with libtpu, that of GPUs with
JAX's plugin for CUDA.
"""

import dataclasses
import importlib.util
import os
import re
from typing import Any

import jax

from fourm_jax.parallel import gpus
from fourm_jax.utils import errors, extras

GIB = 2**30
# Memory per chip that a program may use, as the compiler states it.
TPUS = {"v4": 32 * GIB, "v5e": 16 * GIB, "v5p": 95 * GIB, "v6e": 32 * GIB}
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # no metadata server outside of the cloud
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is locked: there is no device
}
_GPU_NAME = re.compile(r"gpu:(?P<count>[1-9]\d*)x(?P<kind>\w+)(\*(?P<hosts>[1-9]\d*))?")
_TPU_NAME = re.compile(r"(?P<kind>v\w+):(?P<shape>\d+(x\d+){1,2})(\*(?P<slices>\d+))?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """Devices to compile for.

    Attributes:
      name: as the user wrote it, e.g. "v5e:16x16" or "gpu:8xh100".
      devices: of the compiler.
      memory_bytes: that a program may use, per device.
      gpu: the card; None for TPUs.
    """

    name: str
    devices: list[jax.Device]
    memory_bytes: int
    gpu: gpus.Gpu | None = None


def find(name: str) -> Topology:
    """The devices of a slice or of hosts, e.g. "v5e:16x16", "v5e:16x16*2", "gpu:8xh100*2".

    Raises:
      ValueError: a name of nothing, or the compiler is not installed.
    """
    if match := _GPU_NAME.fullmatch(name):
        if match["kind"] not in gpus.GPUS:
            raise ValueError(errors.unknown_value("GPU", match["kind"], gpus.GPUS))
        gpu = gpus.GPUS[match["kind"]]
        devices = _gpus(gpu, int(match["hosts"] or 1), int(match["count"]))
        return Topology(name=name, devices=devices, memory_bytes=gpu.memory_bytes, gpu=gpu)
    match = _TPU_NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"topology {name!r}, allowed: KIND:SHAPE as v5e:16x16 or v5p:4x4x4 with a KIND of "
            f"{[*TPUS]}, several slices as v5e:16x16*2, or gpu:COUNTxKIND as gpu:8xh100 with a "
            f"KIND of {[*gpus.GPUS]}, several hosts as gpu:8xh100*2"
        )
    if match["kind"] not in TPUS:
        raise ValueError(errors.unknown_value("TPU", match["kind"], TPUS))
    slices = int(match["slices"] or 1)
    devices = _tpus(name.partition("*")[0], slices)
    return Topology(name=name, devices=devices, memory_bytes=TPUS[match["kind"]])


def _tpus(name: str, num_slices: int = 1) -> list[jax.Device]:
    extras.require("libtpu", extra="tpu", who="compiling for a TPU that is not here")
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    options: dict[str, Any] = {"platform": "tpu"}
    options |= {"num_slices": num_slices} if num_slices > 1 else {}
    return _devices(name, options)


def _gpus(gpu: gpus.Gpu, num_hosts: int, per_host: int) -> list[jax.Device]:
    cuda = cuda_version()
    if cuda is None:
        raise ValueError(
            "compiling for a GPU that is not here needs jax-cuda12-plugin or jax-cuda13-plugin: "
            "pip install 'fourm_jax[cuda]'"
        )
    # slices × hosts × devices; slices would be those of one network of NVLink over hosts
    shape = f"1x{num_hosts}x{per_host}"
    return _devices(
        gpu.name, {"platform": "cuda", "topology": shape, "target_config": gpu.target(cuda)}
    )


def cuda_version() -> int | None:
    """Version of CUDA that the installed plugin of JAX is for; None without a plugin."""
    if importlib.util.find_spec("jax_plugins") is None:
        return None
    found = [n for n in (13, 12) if importlib.util.find_spec(f"jax_plugins.xla_cuda{n}")]
    return found[0] if found else None


def _devices(name: str, options: dict[str, Any]) -> list[jax.Device]:
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(name, **options).devices)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise ValueError(
            f"topology {name!r}: the compiler knows no such devices: {reason}"
        ) from error
