"""Rows of a table that is cut over devices, without putting it together.

Left to the compiler, every device sums a gradient of the size of the whole table. Here the devices
that share a table exchange what is looked up instead, which is thousands of rows and not hundreds
of thousands: each looks up its own columns for the samples of all of them, hands every device the
columns of its samples, and adds the gradient of its own columns up alone. Only replicas of the
table then sum anything, each its part.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from fourm_jax.parallel import sharding


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Table:
    """A table [rows, d]: its layout, and shape and type of the part that a device holds.

    Attributes:
      rows: whether the rows are divided over "tensor".
      columns: whether the columns are divided over "fsdp".
      scale, sent: factor on what is found, and the type that it then has, also on its way.
    """

    rows: bool
    columns: bool
    part: tuple[int, int]
    dtype: DTypeLike
    scale: float
    sent: DTypeLike

    @property
    def spec(self) -> P:
        return P("tensor" if self.rows else None, "fsdp" if self.columns else None)


def take_rows(
    table: Float[Array, "rows d"],
    index: Int[Array, "b n"],
    scale: float = 1.0,
    dtype: DTypeLike | None = None,
) -> Float[Array, "b n d"]:
    """table[index] · scale; an index outside of the table means the nearest row.

    Under a mesh that cuts tables (`sharding.TABLE`), and whose batch axes `b` divides over, the
    devices exchange rows; the gradient is summed in float32. Else this is `jnp.take`.

    Args:
      dtype: of the result, to which it is rounded before it is sent; default: that of the table.
    """
    dtype = table.dtype if dtype is None else dtype
    mesh = jax.sharding.get_abstract_mesh()

    def plain() -> Float[Array, "b n d"]:
        return (jnp.take(table, index, axis=0, mode="clip") * scale).astype(dtype)

    if mesh.empty or AxisType.Manual in mesh.axis_types:
        return plain()
    cut = (*sharding.fit(sharding.TABLE, table.shape, mesh), None, None)[:2]
    divides = index.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0
    if cut == (None, None) or not divides:
        return plain()
    parts = [mesh.shape[name] if name else 1 for name in cut]
    described = _Table(
        rows=cut[0] is not None,
        columns=cut[1] is not None,
        part=(table.shape[0] // parts[0], table.shape[1] // parts[1]),
        dtype=table.dtype,
        scale=scale,
        sent=dtype,
    )
    return _take_rows(described, table, jnp.clip(index, 0, len(table) - 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _take_rows(
    described: _Table, table: Float[Array, "rows d"], index: Int[Array, "b n"]
) -> Float[Array, "b n d"]:
    def on_device(
        part: Float[Array, "own_rows columns"], index: Int[Array, "own n"]
    ) -> Float[Array, "own n d"]:
        found = jnp.take(part, _own_index(described, index), axis=0, mode="fill", fill_value=0)
        found = (found * described.scale).astype(described.sent)
        if described.columns:
            found = jax.lax.all_to_all(found, "fsdp", split_axis=0, concat_axis=2, tiled=True)
        return jax.lax.psum(found, "tensor") if described.rows else found

    samples = P(sharding.BATCH)
    return jax.shard_map(
        on_device, in_specs=(described.spec, samples), out_specs=samples, check_vma=False
    )(table, index)


def _forward(
    described: _Table, table: Float[Array, "rows d"], index: Int[Array, "b n"]
) -> tuple[Float[Array, "b n d"], Int[Array, "b n"]]:
    return _take_rows(described, table, index), index


def _backward(
    described: _Table, index: Int[Array, "b n"], gradient: Float[Array, "b n d"]
) -> tuple[Float[Array, "rows d"], None]:
    def on_device(
        index: Int[Array, "own n"], gradient: Float[Array, "own n d"]
    ) -> Float[Array, "own_rows columns"]:
        if described.columns:
            # Cut before it is sent: of what is sent along its last axis, XLA's GPU compiler puts
            # that axis first in memory, and does so with all that is added to it, up to the sums
            # of the blocks, which kernels then need copied.
            num_own, n, _ = gradient.shape
            parts = gradient.reshape(num_own, n, -1, described.part[1]).transpose(2, 0, 1, 3)
            parts = jax.lax.all_to_all(parts, "fsdp", split_axis=0, concat_axis=0, tiled=True)
            gradient = parts.reshape(-1, n, described.part[1])
        gradient = gradient.astype(jnp.float32) * described.scale
        nothing = jnp.zeros(described.part, jnp.float32)
        own = nothing.at[_own_index(described, index)].add(gradient, mode="drop")
        replicas = "data" if described.columns else sharding.BATCH
        return jax.lax.psum(own, replicas).astype(described.dtype)

    samples = P(sharding.BATCH)
    d_table = jax.shard_map(
        on_device, in_specs=(samples, samples), out_specs=described.spec, check_vma=False
    )(index, gradient)
    return d_table, None


_take_rows.defvjp(_forward, _backward)


def _own_index(described: _Table, index: Int[Array, "own n"]) -> Int[Array, "group n"]:
    """What this device looks up in its part, for all with whom it shares a table.

    Of rows that another device holds: a number outside of the part.
    """
    if described.columns:
        index = jax.lax.all_gather(index, "fsdp", tiled=True)
    if not described.rows:
        return index
    num_rows = described.part[0]
    index -= jax.lax.axis_index("tensor") * num_rows
    return jnp.where((index >= 0) & (index < num_rows), index, num_rows)
