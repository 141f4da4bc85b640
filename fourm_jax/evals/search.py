"""Exact nearest neighbours among stored vectors, on the host or on a device."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fourm_jax.evals.measures import neighbours
from fourm_jax.utils import errors

BACKENDS = ("numpy", "jax")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hits:
    """The nearest rows of every query, nearest first.

    Attributes:
      rows: of the index.
      cosines: of query and row.
    """

    rows: Int[np.ndarray, "q k"]
    cosines: Float[np.ndarray, "q k"]


def nearest(
    queries: Float[np.ndarray, "q d"],
    index: Float[np.ndarray, "n e"],
    k: int,
    *,
    backend: str = "numpy",
) -> Hits:
    """The k rows with the largest cosine; of equal ones the first.

    Raises:
      ValueError: more rows asked than there are, vectors of another length, or no such backend.
    """
    if not 1 <= k <= len(index):
        raise ValueError(f"k {k}, allowed: 1..{len(index)}, the rows of the index")
    if queries.shape[1] != index.shape[1]:
        raise ValueError(f"queries of {queries.shape[1]} numbers, the index has {index.shape[1]}")
    if backend not in BACKENDS:
        raise ValueError(errors.unknown_value("backend", backend, BACKENDS))
    one, two = (neighbours.unit(rows).astype(np.float32) for rows in (queries, index))
    if backend == "jax":
        cosines, rows = jax.device_get(_nearest(one, two, k))
        return Hits(rows=rows.astype(np.int64), cosines=cosines)
    cosines = one @ two.T
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return Hits(rows=rows, cosines=np.take_along_axis(cosines, rows, axis=1))


@functools.partial(jax.jit, static_argnames="k")
def _nearest(
    queries: Float[Array, "q d"], index: Float[Array, "n d"], k: int
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    cosines = jnp.einsum("qd,nd->qn", queries, index, precision="highest")
    values, rows = jax.lax.top_k(cosines, k)
    return values, rows
