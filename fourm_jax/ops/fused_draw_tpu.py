"""`ops.sampling.sample` behind its temperature as one Pallas kernel for TPUs.

XLA reads and writes all logits some thirty times, and a pass over a grid takes longer to draw than
to predict. Here they are read once: a program holds some rows in vector memory while it halves, in
turns, the float32 numbers for the nucleus and the ids for the draw. A TPU has no cumulated sums, so
that an id is found by what all ids up to it weigh.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

from fourm_jax.ops import filters, threshold

LANES, SUBLANES = 128, 8  # of a tile
HELD = 2**18  # logits that a program holds: 1 MiB, and some ten times that while it computes
NUM_HALVINGS = 32  # of the interval between two 32-bit integers

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

    Arguments as those of `fused_draw.draw`.
    """
    num_rows = len(logits)
    padding = ((0, 0), (0, -logits.shape[1] % LANES))
    logits = jnp.pad(logits, padding, constant_values=-jnp.inf)
    size = logits.shape[1]
    at_once = min(max(HELD // size // SUBLANES, 1), SUBLANES) * SUBLANES
    number = pl.BlockSpec((at_once, 1), lambda i: (i, 0))
    same = pl.BlockSpec(memory_space=pltpu.SMEM)
    drawn: tuple[Array, Array] = pl.pallas_call(
        functools.partial(_kernel, top_p=top_p),
        grid=(pl.cdiv(num_rows, at_once),),
        in_specs=[number, pl.BlockSpec((at_once, size), lambda i: (i, 0)), same, same],
        out_specs=(number, number),
        out_shape=tuple(jax.ShapeDtypeStruct((num_rows, 1), d) for d in (jnp.int32, jnp.float32)),
        interpret=interpret,
        name="draw",
    )(uniform[:, None], logits, divisor[None], is_frozen[None].astype(jnp.int32))
    ids, confidence = drawn
    return ids[:, 0], confidence[:, 0]


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
    logits = logits_ref[...] / divisor_ref[0]
    largest = logits.max(axis=1, keepdims=True)
    weights = jnp.exp(logits - largest)
    numbers = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    if top_p:
        probs = weights / weights.sum(axis=1, keepdims=True)
        weights = jnp.where(_nucleus(logits, probs, numbers, top_p), weights, 0.0)
    total = weights.sum(axis=1, keepdims=True)
    level = uniform_ref[...] * total
    # Never an id without weight, whatever rounding does: beyond the sum it is the last one with.
    last = jnp.where(weights > 0, numbers, 0).max(axis=1, keepdims=True)
    drawn = _first_number(lambda number: _mass(weights, numbers <= number) > level, last, logits)
    likeliest = jnp.where(logits == largest, numbers, logits.shape[1]).min(axis=1, keepdims=True)
    ids = jnp.where(is_frozen_ref[0] != 0, likeliest, drawn)
    ids_ref[...] = ids
    own = jnp.where(numbers == ids, logits, -jnp.inf).max(axis=1, keepdims=True)
    confidence_ref[...] = jnp.exp(own - largest - jnp.log(total))


def _nucleus(
    logits: Float[Array, "r v"],
    probs: Float[Array, "r v"],
    numbers: Int[Array, "r v"],
    top_p: float,
) -> Bool[Array, "r v"]:
    """What `filters.filter_top_p` keeps."""
    keys = threshold.sortable(logits)
    bracket = keys.min(axis=1, keepdims=True) - 1, keys.max(axis=1, keepdims=True)
    crossing = _smallest(lambda key: _mass(probs, keys > key) <= top_p, bracket, NUM_HALVINGS)
    above, tied = keys > crossing, keys == crossing
    ones = tied.astype(jnp.float32)  # integers have no sums there
    left = top_p - _mass(probs, above)
    each = jnp.where(tied, probs, 0.0).max(axis=1, keepdims=True)
    num_tied = ones.sum(axis=1, keepdims=True).astype(jnp.int32)
    num_kept = filters.num_kept_of_tied(left, each, num_tied).astype(jnp.float32)
    last = jnp.full_like(crossing, logits.shape[1] - 1)
    end = _first_number(lambda number: _mass(ones, numbers <= number) >= num_kept, last, logits)
    return above | (tied & (numbers <= end))


def _mass(weights: Float[Array, "r v"], mask: Bool[Array, "r v"]) -> Float[Array, "r 1"]:
    return jnp.where(mask, weights, 0.0).sum(axis=1, keepdims=True)


def _first_number(
    holds: Callable[[Array], Array], last: Int[Array, "r 1"], logits: Float[Array, "r v"]
) -> Int[Array, "r 1"]:
    """The first number of an id, `last` at most, for which `holds`; it does for all after it."""
    return _smallest(holds, (jnp.full_like(last, -1), last), logits.shape[1].bit_length())


def _smallest(
    holds: Callable[[Array], Array], bracket: tuple[Array, Array], num_halvings: int
) -> Int[Array, "r 1"]:
    """The smallest integer for which `holds`: not for the lower end, and if for none the upper."""

    def halve(_: Any, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        open_yet, here = low < high - 1, holds(middle)
        high = jnp.where(open_yet & here, middle, high)
        return jnp.where(open_yet & ~here, middle, low), high

    found: Array = jax.lax.fori_loop(0, num_halvings, halve, bracket)[1]
    return found
