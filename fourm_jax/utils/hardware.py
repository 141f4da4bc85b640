"""The kind of device that a program is built for, which need not be one of this machine."""

import jax


def platform() -> str:
    """Return "cpu", "gpu" or "tpu": of the mesh in use, else of the default device.

    A step that is compiled ahead of time for another machine runs under a mesh of its devices.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device is not None else jax.default_backend()
