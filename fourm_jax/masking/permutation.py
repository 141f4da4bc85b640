"""Random order of the cells of a grid without sorting: a keyed permutation, cell by cell."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32

NUM_ROUNDS = 6


def mix(x: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """Spread every input bit over all 32 output bits (the finalizer of MurmurHash3)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def permute(
    rank: Int[Array, "*n"], size: Int[Array, "*n"], seed: UInt32[Array, "*n"]
) -> Int[Array, "*n"]:
    """Return the cell that stands at place `rank` of a random order of `size` cells.

    For each seed it is a bijection of 0..size-1, so different ranks never meet and the first k
    ranks are a random subset. It costs a few integer operations per *wanted* cell, where sorting
    noise costs size · log(size) for every grid, wanted or not. A Feistel network on two
    coordinates, rank = x · columns + y: each round shifts one coordinate by a hash of the other
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Where size is not
    rows · columns, results outside are permuted again until they fall inside.

    Args:
      rank: in 0..size-1; beyond, the last one is meant (outside cells may never come inside).
      size: number of cells, at most 65,536.
      seed: any value; all ranks of one order take the same.
    """
    rows = jnp.maximum(jnp.floor(jnp.sqrt(size.astype(jnp.float32))).astype(jnp.int32), 1)
    columns = (size + rows - 1) // rows
    rank = jnp.minimum(rank, size - 1)

    def outside(cell):
        return jnp.any(cell >= size)

    def walk(cell):
        return jnp.where(cell >= size, _shuffle_once(cell, rows, columns, seed), cell)

    return jax.lax.while_loop(outside, walk, _shuffle_once(rank, rows, columns, seed))


def _shuffle_once(
    cell: Int[Array, "*n"],
    rows: Int[Array, "*n"],
    columns: Int[Array, "*n"],
    seed: UInt32[Array, "*n"],
) -> Int[Array, "*n"]:
    # Float division is exact here (cells < 2^16) and, unlike integer division, vectorized.
    x = jnp.floor((cell + 0.5) / columns.astype(jnp.float32)).astype(jnp.int32)
    y = cell - x * columns
    for i in range(0, NUM_ROUNDS, 2):
        x = _shift(x, y, rows, seed, i)
        y = _shift(y, x, columns, seed, i + 1)
    return x * columns + y


def _shift(
    value: Int[Array, "*n"],
    other: Int[Array, "*n"],
    size: Int[Array, "*n"],
    seed: UInt32[Array, "*n"],
    i: int,
) -> Int[Array, "*n"]:
    """Add a hash of `other` modulo `size`."""
    salt = jnp.uint32((0x9E3779B9 * (i + 1)) % 2**32)
    bits = mix(seed ^ (other.astype(jnp.uint32) * jnp.uint32(0x01000193) + salt))
    value = value + ((bits >> 16) * size.astype(jnp.uint32) >> 16).astype(jnp.int32)
    return jnp.where(value >= size, value - size, value)
