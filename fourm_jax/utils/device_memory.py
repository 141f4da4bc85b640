"""A device with too little memory, said in one line."""

import contextlib
from collections.abc import Iterator, Mapping

import jax

USUAL_SHARE = 0.75  # of a GPU, that JAX takes
LARGE_SHARE = 0.95  # that it takes where the variable says so
LARGE_SETTING = "XLA_PYTHON_CLIENT_MEM_FRACTION=.95"
_CODE = "RESOURCE_EXHAUSTED"  # of XLA, whatever the device


class DeviceMemoryError(MemoryError):
    """A program does not fit on the device."""


@contextlib.contextmanager
def explained(advice: str) -> Iterator[None]:
    """Context in which XLA's report of several screens becomes its first line and `advice`.

    Raises:
      DeviceMemoryError: the device has too little memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = str(error)
        if _CODE not in reason:
            raise
        first = reason[reason.index(_CODE) :].splitlines()[0][:200]
        device = jax.local_devices()[0]
        allowed = allowance(device.platform, device.memory_stats() or {})
        raise DeviceMemoryError(
            f"too little memory on the device ({first}). {allowed}{advice}"
        ) from error


def allowance(platform: str, stats: Mapping[str, int]) -> str:
    """What JAX may take of a device and has taken, as a sentence; "" where it does not count.

    Of a GPU it takes three quarters, unless an environment variable says otherwise.

    Args:
      platform: "cpu", "gpu" or "tpu".
      stats: of `jax.Device.memory_stats`, bytes.
    """
    if "bytes_limit" not in stats:
        return ""
    limit, used = (stats[name] / 2**30 for name in ("bytes_limit", "bytes_in_use"))
    text = f"JAX may take {limit:.1f} GiB here, {used:.1f} are in use"
    if platform == "gpu":
        large, usual = round(100 * LARGE_SHARE), round(100 * USUAL_SHARE)
        text += f"; {LARGE_SETTING} allows {large} % of the card (without it {usual})"
    return text + ". "
