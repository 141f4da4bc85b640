"""The kind of device that a program is built for, which need not be one of this machine."""

import os
from typing import Any

import jax

_GRAPHS = "xla_gpu_enable_command_buffer"
# What XLA records into CUDA graphs by itself, and then loops and branches: of those that it does
# not record, the host waits for the answer of the device before every round.
_RECORDED = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"


def platform() -> str:
    """Return "cpu", "gpu" or "tpu": of the mesh in use, else of the default device.

    A step that is compiled ahead of time for another machine runs under a mesh of its devices.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device is not None else jax.default_backend()


def compiler_options(platform: str) -> dict[str, Any] | None:
    """Options of `jax.jit` for programs with loops; what a user's `XLA_FLAGS` say of it counts."""
    if platform != "gpu" or _GRAPHS in os.environ.get("XLA_FLAGS", ""):
        return None
    return {_GRAPHS: _RECORDED}
