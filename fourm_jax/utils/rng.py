"""Named random streams: every draw of a run is a function of (seed, name, step)."""

import zlib

import jax
import numpy as np
from jaxtyping import Array, Int, Key


def stream(root: Key[Array, ""], name: str) -> Key[Array, ""]:
    """Key of the stream `name` (crc32, as Python's own hash changes from run to run)."""
    return jax.random.fold_in(root, zlib.crc32(name.encode()))


def streams(roots: Key[Array, "b"], name: str) -> Key[Array, "b"]:
    """`stream` of every key, by one program for all names."""
    return _folded(roots, np.uint32(zlib.crc32(name.encode())))


_folded = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(0, None)))


def step_key(root: Key[Array, ""], name: str, step: int | Int[Array, ""]) -> Key[Array, ""]:
    """Key of the stream `name` at `step`; nothing about randomness needs saving."""
    return jax.random.fold_in(stream(root, name), step)


def check_seed(seed: int) -> int:
    """Return a seed that keys can be made of.

    Raises:
      ValueError: it is negative or has more than 63 bits.
    """
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed {seed}, allowed: 0 to 2**63 - 1")
    return seed
