"""Parts of arrays that lie where the array has them.

An index of an array is a copy, inside of a program too. On a CPU a part along the first axis can be
an array of its own in the same memory.
"""

from typing import Any

import jax
import numpy as np


def may_share(array: Any) -> bool:
    """Whether an array lies in the memory of one CPU, so that a `part` of it takes none."""
    if isinstance(array, jax.core.Tracer) or not isinstance(array, jax.Array):
        return False
    devices = array.devices()
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"


def part(array: Any, index: int | slice) -> Any:
    """Return array[index] of the first axis, in the memory of the array if that `may_share` it.

    A program that is given the array to write over (`donate_argnums`) leaves it as it is.
    """
    if not may_share(array):
        return array[index]
    device = next(iter(array.devices())) if array.committed else None
    return jax.device_put(np.asarray(array)[index], device, may_alias=True)
