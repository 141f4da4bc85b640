"""Large random arrays, drawn a part of their rows at a time.

A counting generator needs several arrays of counters and bits beside the one it fills, each as
large: for the token tables of *xlarge* 2.1 GiB each. Here a loop fills the array part by part, with
the numbers that it would get at once.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import random as extended_random
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, UInt32

PART = 2**24  # numbers drawn at a time
_MAX_SIZE = 2**32  # of an array whose counters are one word
Initializer = Callable[..., Array]  # (key, shape, dtype) -> array, as those of jax.nn


def in_parts(init: Initializer, part: int = PART) -> Initializer:
    """Return an initializer with the results of `init`, in the memory of the result and some parts.

    Args:
      init: draws every number from bits of its own, whatever the shape, as `jax.random.normal` and
        `uniform` do. Types of other than 32 bits are drawn at once, and so is everything with
        another generator than threefry2x32.
      part: how many numbers a part has at the most; a row is never cut.
    """

    def init_in_parts(
        key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "rows *columns"]:
        columns, size = math.prod(shape[1:]), math.prod(shape)
        counts = jax.random.key_impl(key) == "threefry2x32" and size < _MAX_SIZE
        if size <= part or not counts or jnp.dtype(dtype).itemsize != 4:
            return init(key, shape, dtype)
        rows, words = max(part // columns, 1), jax.random.key_data(key)

        def fill(number: Array, array: Array) -> Array:
            # the last part begins early and repeats some rows, with the same numbers
            first = jnp.minimum(number * rows, shape[0] - rows)
            start = first.astype(jnp.uint32) * columns
            words_from = jnp.concatenate([words, start[None]])
            key_from = jax.random.wrap_key_data(words_from, impl=_THREEFRY_FROM)
            values = init(key_from, (rows, *shape[1:]), dtype)
            return jax.lax.dynamic_update_slice_in_dim(array, values, first, 0)

        return jax.lax.fori_loop(0, -(-shape[0] // rows), fill, jnp.zeros(shape, dtype))

    return init_in_parts


def _bits(words: UInt32[Array, "3"], bit_width: int, shape: Sequence[int]) -> Array:
    """What threefry2x32 gives the numbers words[2], words[2] + 1, … of an array (partitionable)."""
    if bit_width != 32:
        raise ValueError(f"numbers of {bit_width} bits, allowed: 32")
    count = words[2] + jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    high, low = extended_random.threefry2x32_p.bind(
        words[0], words[1], jnp.zeros_like(count), count
    )
    return high ^ low


def _refuse(*_: Any) -> Any:
    raise TypeError("a key of a part draws numbers: it is neither seeded, split nor folded")


_THREEFRY_FROM = extended_random.define_prng_impl(
    key_shape=(3,),
    seed=_refuse,
    split=_refuse,
    random_bits=_bits,
    fold_in=_refuse,
    name="threefry2x32_from",
    tag="fryf",
)
