"""How the vectors of numbers in texts begin: each near to those of its neighbours.

Boxes, colours and metadata are words "v<axis>=<bin>", a row of the table for each. From unrelated
rows a trunk learns every value on its own: that 201 is as red as 200 must be seen of both.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import PUBLISHED
from fourm_jax.models import tables

REACH = 40.0  # bins from which on two numbers have little in common
SHARED = 0.9  # share of the standard deviation that follows the value; the rest tells bins apart


def smooth(
    specs: Sequence[ModalitySpec], layout: tables.Layout, std: float
) -> nn.initializers.Initializer:
    """Return the initializer of a token table: N(0, std²), with smooth rows for numbers.

    The rows of an axis are random waves over its bins, whose products fall like a Gaussian of
    `REACH` bins (random Fourier features, Rahimi and Recht 2007), with independent noise on top.
    """
    firsts = {
        offset + PUBLISHED.first_coordinate_id
        for spec, offset, size in zip(specs, layout.offsets, layout.sizes, strict=True)
        if spec.kind == "sequence" and size >= PUBLISHED.num_reserved
    }

    def init(
        key: Key[Array, ""], shape: tuple[int, int], dtype: Any = jnp.float32
    ) -> Float[Array, "rows d"]:
        values = nn.initializers.normal(std)(key, shape, dtype)
        for number, first in enumerate(sorted(firsts)):
            waves = std * _waves(jax.random.fold_in(key, number), shape[1])
            rows = slice(first, first + len(waves))
            noise = (1 - SHARED**2) ** 0.5 * values[rows]
            values = values.at[rows].set((SHARED * waves + noise).astype(dtype))
        return values

    return init


def _waves(key: Key[Array, ""], dim: int) -> Float[Array, "numbers d"]:
    """Rows of unit variance for all axes, one after the other."""
    axes, bins = PUBLISHED.num_axes, PUBLISHED.num_bins
    of_frequency, of_phase = jax.random.split(key)
    frequency = jax.random.normal(of_frequency, (axes, 1, dim)) / REACH
    phase = jax.random.uniform(of_phase, (axes, 1, dim), maxval=2 * np.pi)
    angle = frequency * jnp.arange(bins)[:, None] + phase
    return (2**0.5 * jnp.cos(angle)).reshape(axes * bins, dim)
