"""`ops.sampling.sample` behind its temperature as one Pallas kernel for NVIDIA GPUs.

XLA reads and writes all logits some fifteen times, and the host waits for two answers of the device
before it can launch what follows. Here a program holds one row: nucleus, draw and confidence read
the logits once. Lowered through Triton, whose blocks have sizes that are powers of two, so rows are
filled up to the next one.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as triton_lib
from jaxtyping import Array, Bool, Float, Int

from fourm_jax.ops import filters, fused_threshold, threshold

Ref = Any  # of Pallas: a block of an array in the memory of the device


def draw(
    uniform: Float[Array, "n"],
    logits: Float[Array, "n v"],
    divisor: Float[Array, ""],
    is_frozen: Bool[Array, ""],
    *,
    top_p: float,
    interpret: bool = False,
) -> tuple[Int[Array, "n"], Float[Array, "n"]]:
    """Draw one id per row from the nucleus of softmax(logits / divisor); (ids, confidences).

    Args:
      uniform: random numbers in [0, 1).
      logits: float32; -inf = never.
      divisor: the temperature, more than 0.
      is_frozen: the most likely id is taken instead.
      top_p: mass of the nucleus; 0: all ids.
    """
    num_rows, size = logits.shape
    padding = 2 ** (size - 1).bit_length() - size
    logits = jnp.pad(logits, ((0, 0), (0, padding)), constant_values=-jnp.inf)
    row = pl.BlockSpec((1, size + padding), lambda i: (i, 0))
    number = pl.BlockSpec((1,), lambda i: (i,))
    same = pl.BlockSpec((1,), lambda i: (0,))
    drawn: tuple[Array, Array] = pl.pallas_call(
        functools.partial(_kernel, top_p=top_p),
        grid=(num_rows,),
        in_specs=[number, row, same, same],
        out_specs=(number, number),
        out_shape=tuple(jax.ShapeDtypeStruct((num_rows,), d) for d in (jnp.int32, jnp.float32)),
        compiler_params=triton_lib.CompilerParams(
            num_warps=min(max((size + padding) // 1024, 4), 16), num_stages=1
        ),
        interpret=interpret,
        name="draw",
    )(uniform, logits, divisor[None], is_frozen[None].astype(jnp.int32))
    return drawn


def _kernel(
    uniform_ref: Ref,
    logits_ref: Ref,
    divisor_ref: Ref,
    is_frozen_ref: Ref,
    ids_ref: Ref,
    confidence_ref: Ref,
    *,
    top_p: float,
) -> None:
    logits = logits_ref[...] / divisor_ref[...][:, None]
    largest = logits.max(axis=1)
    weights = jnp.exp(logits - largest[:, None])
    numbers = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    if top_p:
        probs = weights / weights.sum(axis=1)[:, None]
        weights = jnp.where(_nucleus(logits, probs, top_p), weights, 0.0)
    total = weights.sum(axis=1)
    level = uniform_ref[...] * total
    above = (weights > 0) & (jnp.cumsum(weights, axis=1) > level[:, None])
    # Never an id without weight, whatever rounding does: beyond the sum it is the last one with.
    first = jnp.where(above, numbers, weights.shape[1]).min(axis=1)
    last = jnp.where(weights > 0, numbers, 0).max(axis=1)
    likeliest = jnp.where(logits == largest[:, None], numbers, weights.shape[1]).min(axis=1)
    ids = jnp.where(is_frozen_ref[...] != 0, likeliest, jnp.minimum(first, last))
    ids_ref[...] = ids
    own = jnp.where(numbers == ids[:, None], logits, -jnp.inf).max(axis=1)
    confidence_ref[...] = jnp.exp(own - largest - jnp.log(total))


def _nucleus(
    logits: Float[Array, "1 v"], probs: Float[Array, "1 v"], top_p: float
) -> Bool[Array, "1 v"]:
    """What `filters.filter_top_p` keeps."""
    keys = threshold.sortable(logits)
    crossing = fused_threshold.bisect(keys, probs, jnp.float32(top_p))[:, None]
    above, tied = keys > crossing, keys == crossing
    left = top_p - jnp.where(above, probs, 0.0).sum(axis=1)
    each = jnp.where(tied, probs, 0.0).max(axis=1)
    num_kept = filters.num_kept_of_tied(left, each, tied.astype(jnp.int32).sum(axis=1))
    rank = jnp.cumsum(tied.astype(jnp.int32), axis=1)
    return above | (tied & (rank <= num_kept[:, None]))
