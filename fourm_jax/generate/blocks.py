"""Rows in blocks that are on the devices at once."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key

from fourm_jax.generate.state import State
from fourm_jax.parallel import sharding, shares

Compute = Callable[[np.ndarray, State, Any], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Devices:
    """What computes blocks.

    Attributes:
      mesh: devices that share the rows of each block; None: the first one.
      is_divided: the processes of a command divide the blocks (`parallel.shares`).
    """

    mesh: Mesh | None = None
    is_divided: bool = False

    def compute(
        self, state: State, keys: Key[Array, "b"] | None, batch_size: int, compute: Compute
    ) -> list[Any]:
        """What `compute` makes of the row numbers, states and keys of every block, in order."""
        blocks = self._blocks(state, keys, batch_size)
        compute = sharding.under(self.mesh, compute)
        if self.is_divided:
            return shares.divided(blocks, lambda block: compute(*block))
        return [compute(*block) for block in blocks]

    def _blocks(
        self, state: State, keys: Key[Array, "b"] | None, batch_size: int
    ) -> Iterator[tuple[np.ndarray, State, Any]]:
        """Row numbers, states and keys that are on the devices at once."""
        multiple = self.mesh.shape["data"] * self.mesh.shape["fsdp"] if self.mesh else 1
        for rows, block in blocks(state, batch_size, multiple):
            own = None if keys is None else keys[rows]
            if self.mesh:
                layout = sharding.batch_sharding(self.mesh, len(rows))
                block, own = jax.device_put((block, own), layout)
            yield rows, block, own


def blocks(state: State, batch_size: int, multiple: int = 1) -> Iterator[tuple[np.ndarray, State]]:
    """Row numbers and states of equal size, a multiple of `multiple`; spare rows repeat the last
    one. ValueError for a batch_size below 1."""
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size}, allowed: at least 1")
    size = -(-min(batch_size, state.batch_size) // multiple) * multiple
    for start in range(0, state.batch_size, size):
        rows = np.minimum(np.arange(start, start + size), state.batch_size - 1)
        yield rows, jax.tree.map(lambda leaf, rows=rows: leaf[rows], state)
