"""Which array lies where: one table of path rules over the whole train state."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from fourm_jax.utils import tree

BATCH = ("data", "fsdp")  # mesh axes that the samples of a batch are divided over
TABLE = P("tensor", "fsdp")  # of a table of tokens or heads, [rows, d]

# (regex on the path, spec of the last axes). First match wins; specs are right-aligned, so that
# the layer axis of scanned blocks is replicated. Optimizer moments, the running average and the
# parameters they belong to end in the same path and so get the same layout.
RULES: tuple[tuple[str, P], ...] = (
    (r"attention/(q|kv|qkv)/kernel$", P("fsdp", None, "tensor", None)),  # [d, count, h, k]
    (r"attention/out/kernel$", P("tensor", None, "fsdp")),  # [h, k, d]
    (r"fc[13]/kernel$", P("fsdp", "tensor")),  # [d, f]
    (r"fc2/kernel$", P("tensor", "fsdp")),  # [f, d]
    (r"(tokens|heads)$", TABLE),
    (r"kernel$", P("fsdp", None)),
    (r"kernel/[ab]$", P()),  # low-rank adapters
    (r"positions/table$", P()),  # learned: a thousandth of the table of tokens
    (r"(bias|scale|step|count|codes|code_sums|cluster_size|initialized)$|^metrics/", P()),
)
# What no rule names is replicated up to this many elements; a larger array is an error where
# parameters are cut at all, as it would fill every device.
LARGEST_UNNAMED = 2**20


def fit(spec: P, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    """Align `spec` to the last axes of `shape`; axes that do not divide are replicated."""
    entries: list[Any] = [None] * len(shape)
    for offset in range(1, min(len(spec), len(shape)) + 1):
        names = spec[len(spec) - offset]
        names = (names,) if isinstance(names, str) else tuple(names or ())
        parts = math.prod(mesh.shape[name] for name in names)
        if parts > 1 and shape[-offset] % parts == 0:
            entries[len(shape) - offset] = names if len(names) > 1 else names[0]
    while entries and entries[-1] is None:  # one spelling per layout, as jit compares spellings
        entries.pop()
    return P(*entries)


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Sharding of every leaf of a state (or of its shapes), by the first rule that matches.

    Raises:
      ValueError: a large array that no rule names, on a mesh that cuts parameters.
    """
    cuts = mesh.shape["fsdp"] * mesh.shape["tensor"] > 1

    def of(name: str, leaf: Any) -> NamedSharding:
        for pattern, spec in RULES:
            if re.search(pattern, name):
                return NamedSharding(mesh, fit(spec, leaf.shape, mesh))
        if cuts and leaf.size > LARGEST_UNNAMED:
            raise ValueError(
                f"no sharding rule names {name!r} of shape {leaf.shape}; add one to "
                "parallel/sharding.py: RULES"
            )
        return NamedSharding(mesh, P())

    return tree.map_named(of, state)


def batch_sharding(mesh: Mesh, num_samples: int) -> NamedSharding:
    """Sharding of batch arrays [num_samples, ...]; replicated where samples do not divide."""
    return NamedSharding(mesh, fit(P(BATCH), (num_samples,), mesh))


def constrain(x: Array, spec: P) -> Array:
    """Pin the layout of an intermediate array; without a mesh (or on one device) do nothing.

    `spec` names the leading axes, as `PartitionSpec` does; e.g. `P(sharding.BATCH)` keeps the
    samples of [b, n, d] divided. Axes that do not divide are left open.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    padded = P(*spec, *(None,) * (x.ndim - len(spec)))
    return jax.lax.with_sharding_constraint(x, fit(padded, x.shape, mesh))


def under(mesh: Mesh | None, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which computes under a mesh, if there is one, and so knows how arrays lie."""
    if mesh is None:
        return function

    @functools.wraps(function)
    def on_mesh(*arguments: Any) -> Any:
        with jax.set_mesh(mesh):
            return function(*arguments)

    return on_mesh
