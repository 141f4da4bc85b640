"""Named random streams: every draw of a run is a function of (seed, name, step)."""

import zlib

import jax
from jaxtyping import Array, Int, Key


def stream(root: Key[Array, ""], name: str) -> Key[Array, ""]:
    """Key of the stream `name` (crc32, as Python's own hash changes from run to run)."""
    return jax.random.fold_in(root, zlib.crc32(name.encode()))


def step_key(root: Key[Array, ""], name: str, step: int | Int[Array, ""]) -> Key[Array, ""]:
    """Key of the stream `name` at `step`; nothing about randomness needs saving."""
    return jax.random.fold_in(stream(root, name), step)
