"""`ops.threshold` as one Pallas kernel for NVIDIA GPUs.

XLA reads all values once per halving, and the host waits for every one of them. Here a program
holds one row, 32 halvings long. Lowered through Triton, whose blocks have sizes that are powers of
two, so rows are filled up to the next one.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as triton_lib
from jaxtyping import Array, Float, Int

NUM_HALVINGS = 32  # of the interval between two 32-bit integers

Ref = Any  # of Pallas: a block of an array in the memory of the device


def smallest_within(
    keys: Int[Array, "n v"],
    weights: Float[Array, "n v"],
    budget: Float[Array, "n"],
    *,
    interpret: bool = False,
) -> Int[Array, "n"]:
    """Return the smallest of the keys of every row such that those above it weigh at most `budget`.

    Args:
      keys: int32, greater than the smallest one that there is.
      weights: at least 0.
      budget: at least 0.
    """
    num_rows, size = keys.shape
    padding = ((0, 0), (0, 2 ** (size - 1).bit_length() - size))
    keys = jnp.pad(keys, padding, mode="edge")  # repeats a key of the row, without weight
    weights = jnp.pad(weights, padding)
    size = keys.shape[1]
    row = pl.BlockSpec((1, size), lambda i: (i, 0))
    number = pl.BlockSpec((1,), lambda i: (i,))
    found: Array = pl.pallas_call(
        _kernel,
        grid=(num_rows,),
        in_specs=[row, row, number],
        out_specs=number,
        out_shape=jax.ShapeDtypeStruct((num_rows,), jnp.int32),
        compiler_params=triton_lib.CompilerParams(
            num_warps=min(max(size // 1024, 4), 16), num_stages=1
        ),
        interpret=interpret,
        name="threshold",
    )(keys, weights, budget)
    return found


def _kernel(keys_ref: Ref, weights_ref: Ref, budget_ref: Ref, found_ref: Ref) -> None:
    found_ref[...] = bisect(keys_ref[...], weights_ref[...], budget_ref[...])


def bisect(
    keys: Int[Array, "n v"], weights: Float[Array, "n v"], budget: Float[Array, "*n"]
) -> Int[Array, "n"]:
    """What `smallest_within` returns, of rows that a kernel holds."""

    def halve(_, bracket):
        low, high = bracket  # too much lies above `low`, not too much above `high`
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        fits = jnp.where(keys > middle[:, None], weights, 0.0).sum(axis=1) <= budget
        open_yet = low < high - 1
        high = jnp.where(open_yet & fits, middle, high)
        return jnp.where(open_yet & ~fits, middle, low), high

    bracket = keys.min(axis=1) - 1, keys.max(axis=1)
    found: Array = jax.lax.fori_loop(0, NUM_HALVINGS, halve, bracket)[1]
    return found
