"""Tokens sorted by their head and cut into tiles, each of which meets one head of a table.

What is computed for a tile is up to `ops.grouped`; here is which tiles there are, and where the
head of each comes from and the results go.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped

# (start, is_own, features, ids, head) -> (arrays by token of the tile, arrays by row of the head)
Body = Callable[..., tuple[tuple[Array, ...], tuple[Array, ...]]]


@dataclasses.dataclass(frozen=True)
class Heads:
    """Rows of every head in the table, and the mesh axes that its columns are divided over."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    columns: tuple[str, ...] = ()


@flax.struct.dataclass
class Sorted:
    """Tokens in the order of their heads, with one spare tile of invalid ones at the end."""

    features: Float[Array, "padded d"]
    ids: Int[Array, "padded"]
    starts: Int[Array, "groups"]
    counts: Int[Array, "groups"]


@flax.struct.dataclass
class Sums:
    """What the tiles have made so far.

    Attributes:
      by_token: arrays of all sorted tokens, [padded, …].
      by_row: arrays of the rows of the table, or of one head, [rows, columns].
    """

    by_token: tuple[Array, ...]
    by_row: tuple[Array, ...] = ()


def sort(
    tile: int,
    num_groups: int,
    features: Float[Array, "t d"],
    group: Int[Array, "t"],
    ids: Int[Array, "t"],
    valid: Bool[Array, "t"],
) -> tuple[Sorted, Int[Array, "t"]]:
    """Sort by head, invalid tokens last; also return the permutation."""
    key = jnp.where(valid, group, num_groups)
    order = jnp.argsort(key)
    counts = (key[:, None] == jnp.arange(num_groups)).sum(0)
    tokens = Sorted(
        features=jnp.pad(features[order], ((0, tile), (0, 0))),
        ids=jnp.pad(ids[order], (0, tile)),
        starts=jnp.cumsum(counts) - counts,
        counts=counts,
    )
    return tokens, order


@dataclasses.dataclass(frozen=True)
class _SameSize:
    """Heads of one size: their first rows in the table, and where their tokens are."""

    size: int
    first_rows: Int[Array, "heads"]
    starts: Int[Array, "heads"]
    counts: Int[Array, "heads"]


def each_tile(
    heads: Heads,
    tiles: tuple[int, ...],
    tokens: Sorted,
    table: Float[Array, "rows columns"],
    sums: Sums,
    body: Body,
) -> Sums:
    """Loop over all non-empty tiles, one loop per distinct head size.

    `body(start, is_own, features, ids, head)` computes one tile: sorted tokens from `start` on, of
    which `is_own` are of this head. It returns arrays by token, which are written into those of
    `sums`, and arrays by row of the head, which are added to those of `sums`.
    """
    tile = functools.partial(_tile, tiles, tokens, body)
    dtype = tokens.features.dtype
    for size in sorted(set(heads.sizes)):
        members = np.flatnonzero(np.array(heads.sizes) == size)
        first_rows = jnp.asarray(np.array(heads.offsets)[members])
        same = _SameSize(size, first_rows, tokens.starts[members], tokens.counts[members])
        if heads.columns:
            sums = _cut_heads(same, heads.columns, table, dtype, tiles[-1], tile, sums)
        else:
            sums = _whole_heads(same, table, dtype, tiles[-1], tile, sums)
    return sums


def _whole_heads(
    same: _SameSize,
    table: Float[Array, "rows d"],
    dtype: DTypeLike,
    largest: int,
    tile: Callable[..., Sums],
    sums: Sums,
) -> Sums:
    """All tiles of heads of one size, where the device holds the whole table."""
    num_tiles = -(-same.counts // largest)
    ends = jnp.cumsum(num_tiles)

    def step(i: Int[Array, ""], sums: Sums) -> Sums:
        g = (i >= ends).sum()
        skipped = (i - (ends[g] - num_tiles[g])) * largest
        head = jax.lax.dynamic_slice_in_dim(table, same.first_rows[g], same.size).astype(dtype)
        start, left = same.starts[g] + skipped, same.counts[g] - skipped
        return tile(start, left, head, same.first_rows[g], sums)

    return jax.lax.fori_loop(0, ends[-1], step, sums)


def _cut_heads(
    same: _SameSize,
    axes: tuple[str, ...],
    table: Float[Array, "rows columns"],
    dtype: DTypeLike,
    largest: int,
    tile: Callable[..., Sums],
    sums: Sums,
) -> Sums:
    """All tiles of heads of one size, where the device holds some columns of the table.

    Devices meet twice per head, however many tokens each of them has: to put it together and to
    share its gradient out.
    """

    def step(g: Int[Array, ""], sums: Sums) -> Sums:
        columns = jax.lax.dynamic_slice_in_dim(table, same.first_rows[g], same.size).astype(dtype)
        head = jax.lax.all_gather(columns, axes, axis=1, tiled=True)

        def one_tile(i: Int[Array, ""], own: Sums) -> Sums:
            skipped = i * largest
            return tile(same.starts[g] + skipped, same.counts[g] - skipped, head, 0, own)

        nothing = tuple(jnp.zeros(head.shape, whole.dtype) for whole in sums.by_row)
        num_tiles = -(-same.counts[g] // largest)
        own = jax.lax.fori_loop(0, num_tiles, one_tile, Sums(sums.by_token, nothing))
        shares = [
            jax.lax.psum_scatter(part, axes, scatter_dimension=1, tiled=True) for part in own.by_row
        ]
        return Sums(own.by_token, _add_rows(sums.by_row, shares, same.first_rows[g]))

    return jax.lax.fori_loop(0, len(same.first_rows), step, sums)


def _tile(
    tiles: tuple[int, ...],
    tokens: Sorted,
    body: Body,
    start: Int[Array, ""],
    left: Int[Array, ""],
    head: Float[Array, "size d"],
    first_row: Int[Array, ""] | int,
    sums: Sums,
) -> Sums:
    """One tile: the next `left` tokens from `start` on, or as many of them as the largest holds.

    Of several tile sizes the smallest one that holds them is taken, and its arrays by token are
    filled up to the largest, so that the large arrays of `sums` stay outside of the branches.
    """
    largest = tiles[-1]

    def compute(tile: int):
        is_own = jnp.arange(tile) < left
        features = jax.lax.dynamic_slice_in_dim(tokens.features, start, tile)
        ids = jax.lax.dynamic_slice_in_dim(tokens.ids, start, tile)
        by_token, by_row = body(start, is_own, features, ids, head)
        return tuple(_fill(x, largest) for x in by_token), by_row

    if len(tiles) == 1:
        by_token, by_row = compute(largest)
    else:
        branches = [functools.partial(compute, tile) for tile in tiles]
        smallest = (left > jnp.array(tiles)[:-1]).sum()
        by_token, by_row = jax.lax.switch(smallest, branches)
    is_own = jnp.arange(largest) < left
    merged = tuple(
        _merge(whole, part, start, is_own)
        for whole, part in zip(sums.by_token, by_token, strict=True)
    )
    return Sums(merged, _add_rows(sums.by_row, by_row, first_row))


def _add_rows(
    wholes: tuple[Array, ...], parts: Sequence[Array], first_row: Int[Array, ""] | int
) -> tuple[Array, ...]:
    """Add arrays by row of a head to those of all rows."""

    def add(whole: Array, part: Array) -> Array:
        part += jax.lax.dynamic_slice_in_dim(whole, first_row, len(part))
        return jax.lax.dynamic_update_slice_in_dim(whole, part, first_row, 0)

    return tuple(add(whole, part) for whole, part in zip(wholes, parts, strict=True))


def _fill(x: Array, size: int) -> Array:
    return jnp.pad(x, ((0, size - len(x)),) + ((0, 0),) * (x.ndim - 1))


def _merge(
    whole: Shaped[Array, "padded *d"],
    part: Shaped[Array, "tile *d"],
    start: Int[Array, ""],
    is_own: Bool[Array, "tile"],
) -> Shaped[Array, "padded *d"]:
    """Write the `is_own` entries of a tile into the array of all sorted tokens."""
    old = jax.lax.dynamic_slice_in_dim(whole, start, len(part))
    is_own = is_own.reshape(-1, *[1] * (part.ndim - 1))
    return jax.lax.dynamic_update_slice_in_dim(whole, jnp.where(is_own, part, old), start, 0)
