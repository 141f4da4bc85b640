"""Random variables without zeros, so that gates and zero-started layers let things through."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def variables(abstract: Any, scale: float = 0.3) -> Any:
    """Draw arrays for a tree of shapes on the host; booleans are True."""
    rng = np.random.RandomState(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if leaf.dtype == bool:
            return jnp.ones(leaf.shape, bool)
        return jnp.asarray(scale * rng.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map(draw, abstract)
