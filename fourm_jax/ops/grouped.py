"""Cross-entropy where each token meets its own output head only, tile by tile.

The heads of a model with many modalities hold far more rows than any one of them; evaluating all
of them for every token would double the cost of the model, and a [tokens, all rows] array would
not fit. Tokens are sorted by head and cut into tiles; every tile is one dense product with its own
head, in a loop whose length follows the tokens that are really there.

A CPU gets tiles of one small size, which waste little and stay in its caches. An accelerator gets
the smallest of a few sizes that holds all tokens of a head: reading a head and adding to its
gradient then happens once per head instead of once per tile, and products are large.
`jax.lax.ragged_dot` says the same in one call but is grouped on TPU only.

Under a mesh every device handles its own tokens. Where parameters are cut, a device holds some
columns of all heads; one head after the other is put together, used and dropped, and what belongs
to other devices of its gradient is sent to them at once. So no device ever holds all heads, nor a
gradient of that size, and what is sent is that of any other parameter.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped

SMALLEST_TILE, LARGEST_TILE = 32, 1024  # on a CPU
TILES = (512, 1024, 2048, 3072, 4096, 8192)  # on an accelerator; the last bounds the logits' memory
TOKEN_AXES = ("data", "fsdp", "tensor")
COLUMN_AXES = ("fsdp", "tensor")  # that the columns of the table are divided over


def grouped_cross_entropy(
    features: Float[Array, "t d"],
    table: Float[Array, "rows d"],
    group: Int[Array, "t"],
    ids: Int[Array, "t"],
    valid: Bool[Array, "t"],
    *,
    offsets: tuple[int, ...],
    sizes: tuple[int, ...],
    tiles: tuple[int, ...] = (),
) -> tuple[Float[Array, "t"], Bool[Array, "t"]]:
    """Return (-log softmax(features · headᵀ)[id], whether the id has the highest logit).

    Products run in the dtype of `features` with float32 sums; softmax and loss in float32. The
    results are 0 and False where `valid` is False. Tokens and columns of the table are divided over
    the mesh of `jax.set_mesh`, as far as they divide.

    Args:
      features: decoder outputs.
      table: all heads, one after the other.
      group: which head each token meets: index into `offsets` and `sizes`.
      ids: what to predict, 0 .. sizes[group] - 1.
      offsets, sizes: first row and number of rows of each head.
      tiles: allowed numbers of tokens per product, ascending; empty = as fits the device and the
        number of tokens.
    """
    axes, num_shards = _dividing(TOKEN_AXES, len(ids))
    columns, num_cuts = _dividing(COLUMN_AXES, table.shape[1])
    tiles = tiles or _fitting_tiles(len(ids) // num_shards, len(sizes))
    heads = Heads(offsets, sizes, columns if num_cuts > 1 else ())
    compute = functools.partial(_cross_entropy, heads, tiles)
    if num_shards > 1:
        tokens = P(axes)
        compute = jax.shard_map(
            compute,
            in_specs=(tokens, P(None, heads.columns), tokens, tokens, tokens),
            out_specs=(tokens, tokens),
            check_vma=False,  # replicated inputs get their gradient summed over the devices
        )
    return compute(features, table, *map(jnp.asarray, (group, ids, valid)))


@dataclasses.dataclass(frozen=True)
class Heads:
    """Rows of every head in the table, and the mesh axes that its columns are divided over."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    columns: tuple[str, ...] = ()


def _dividing(names: tuple[str, ...], size: int) -> tuple[tuple[str, ...], int]:
    """Those mesh axes that `size` is divided over, and how many parts that makes."""
    mesh = jax.sharding.get_abstract_mesh()
    axes: tuple[str, ...] = ()
    parts = 1
    for name in names if not mesh.empty else ():
        if name in mesh.shape and size % (parts * mesh.shape[name]) == 0:
            axes, parts = (*axes, name), parts * mesh.shape[name]
    return axes, parts


def _fitting_tiles(num_tokens: int, num_groups: int) -> tuple[int, ...]:
    if jax.default_backend() != "cpu":
        fewer = [tile for tile in TILES if tile < num_tokens]
        return (*fewer, TILES[len(fewer)]) if len(fewer) < len(TILES) else TILES
    half = max(num_tokens // (2 * num_groups), 1)  # little waste in the last tile of a head
    return (min(max(2 ** (half.bit_length() - 1), SMALLEST_TILE), LARGEST_TILE),)


@flax.struct.dataclass
class _Sorted:
    """Tokens in the order of their heads, with one spare tile of invalid ones at the end."""

    features: Float[Array, "padded d"]
    ids: Int[Array, "padded"]
    starts: Int[Array, "groups"]
    counts: Int[Array, "groups"]


@flax.struct.dataclass
class _Sums:
    """What the tiles have made so far.

    Attributes:
      by_token: arrays of all sorted tokens, [padded, …].
      by_row: arrays of the rows of the table, or of one head, [rows, columns].
    """

    by_token: tuple[Array, ...]
    by_row: tuple[Array, ...] = ()


def _sort(
    tile: int,
    num_groups: int,
    features: Float[Array, "t d"],
    group: Int[Array, "t"],
    ids: Int[Array, "t"],
    valid: Bool[Array, "t"],
) -> tuple[_Sorted, Int[Array, "t"]]:
    """Sort by head, invalid tokens last; also return the permutation."""
    key = jnp.where(valid, group, num_groups)
    order = jnp.argsort(key)
    counts = (key[:, None] == jnp.arange(num_groups)).sum(0)
    tokens = _Sorted(
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


def _each_tile(
    heads: Heads,
    tiles: tuple[int, ...],
    tokens: _Sorted,
    table: Float[Array, "rows columns"],
    sums: _Sums,
    body: Callable[..., tuple[tuple[Array, ...], tuple[Array, ...]]],
) -> _Sums:
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
    tile: Callable[..., _Sums],
    sums: _Sums,
) -> _Sums:
    """All tiles of heads of one size, where the device holds the whole table."""
    num_tiles = -(-same.counts // largest)
    ends = jnp.cumsum(num_tiles)

    def step(i: Int[Array, ""], sums: _Sums) -> _Sums:
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
    tile: Callable[..., _Sums],
    sums: _Sums,
) -> _Sums:
    """All tiles of heads of one size, where the device holds some columns of the table.

    Devices meet twice per head, however many tokens each of them has: to put it together and to
    share its gradient out.
    """

    def step(g: Int[Array, ""], sums: _Sums) -> _Sums:
        columns = jax.lax.dynamic_slice_in_dim(table, same.first_rows[g], same.size).astype(dtype)
        head = jax.lax.all_gather(columns, axes, axis=1, tiled=True)

        def one_tile(i: Int[Array, ""], own: _Sums) -> _Sums:
            skipped = i * largest
            return tile(same.starts[g] + skipped, same.counts[g] - skipped, head, 0, own)

        nothing = tuple(jnp.zeros(head.shape, whole.dtype) for whole in sums.by_row)
        num_tiles = -(-same.counts[g] // largest)
        own = jax.lax.fori_loop(0, num_tiles, one_tile, _Sums(sums.by_token, nothing))
        shares = [
            jax.lax.psum_scatter(part, axes, scatter_dimension=1, tiled=True) for part in own.by_row
        ]
        return _Sums(own.by_token, _add_rows(sums.by_row, shares, same.first_rows[g]))

    return jax.lax.fori_loop(0, len(same.first_rows), step, sums)


def _tile(
    tiles: tuple[int, ...],
    tokens: _Sorted,
    body: Callable[..., tuple[tuple[Array, ...], tuple[Array, ...]]],
    start: Int[Array, ""],
    left: Int[Array, ""],
    head: Float[Array, "size d"],
    first_row: Int[Array, ""] | int,
    sums: _Sums,
) -> _Sums:
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
    return _Sums(merged, _add_rows(sums.by_row, by_row, first_row))


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


def _logits(
    features: Float[Array, "tile d"], head: Float[Array, "size d"]
) -> Float[Array, "tile size"]:
    return jnp.einsum("td,vd->tv", features, head, preferred_element_type=jnp.float32)


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _cross_entropy(
    heads: Heads,
    tiles: tuple[int, ...],
    features: Float[Array, "t d"],
    table: Float[Array, "rows columns"],
    group: Int[Array, "t"],
    ids: Int[Array, "t"],
    valid: Bool[Array, "t"],
) -> tuple[Float[Array, "t"], Bool[Array, "t"]]:
    return _forward(heads, tiles, features, table, group, ids, valid)[0]


def _forward(
    heads: Heads,
    tiles: tuple[int, ...],
    features: Float[Array, "t d"],
    table: Float[Array, "rows columns"],
    group: Int[Array, "t"],
    ids: Int[Array, "t"],
    valid: Bool[Array, "t"],
) -> tuple[tuple[Float[Array, "t"], Bool[Array, "t"]], tuple[Array, ...]]:
    tokens, order = _sort(tiles[-1], len(heads.sizes), features, group, ids, valid)

    def body(
        start: Int[Array, ""],
        is_own: Bool[Array, "tile"],
        features: Float[Array, "tile d"],
        ids: Int[Array, "tile"],
        head: Float[Array, "size d"],
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        del start, is_own
        logits = _logits(features, head)
        label = jnp.take_along_axis(logits, ids[:, None], axis=1, mode="clip")[:, 0]
        highest = logits.max(axis=1)
        total = jnp.log(jnp.exp(logits - highest[:, None]).sum(axis=1)) + highest
        return (total - label, label >= highest, total), ()

    zeros = jnp.zeros(len(tokens.ids))
    sums = _each_tile(heads, tiles, tokens, table, _Sums((zeros, zeros > 0, zeros)), body)
    loss, correct, log_sum = sums.by_token
    back = jnp.argsort(order)
    return (loss[back], correct[back]), (features, table, group, ids, valid, log_sum)


def _backward(
    heads: Heads,
    tiles: tuple[int, ...],
    saved: tuple[Array, ...],
    gradients: tuple[Array, Any],
) -> tuple[Float[Array, "t d"], Float[Array, "rows columns"], None, None, None]:
    features, table, group, ids, valid, log_sum = saved
    tokens, order = _sort(tiles[-1], len(heads.sizes), features, group, ids, valid)
    loss_gradient = jnp.pad(gradients[0][order], (0, tiles[-1]))

    def body(
        start: Int[Array, ""],
        is_own: Bool[Array, "tile"],
        features: Float[Array, "tile d"],
        ids: Int[Array, "tile"],
        head: Float[Array, "size d"],
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        total = jax.lax.dynamic_slice_in_dim(log_sum, start, len(is_own))
        weight = jax.lax.dynamic_slice_in_dim(loss_gradient, start, len(is_own))
        weight = jnp.where(is_own, weight, 0)
        hit = ids[:, None] == jnp.arange(len(head))
        d_logits = (jnp.exp(_logits(features, head) - total[:, None]) - hit) * weight[:, None]
        # the rows of other heads in this tile carry the sum of their own logits: keep them out
        d_logits = jnp.where(is_own[:, None], d_logits, 0).astype(head.dtype)
        d_tile = jnp.einsum("tv,vd->td", d_logits, head, preferred_element_type=jnp.float32)
        d_head = jnp.einsum("tv,td->vd", d_logits, features, preferred_element_type=jnp.float32)
        return (d_tile,), (d_head,)

    zeros = _Sums((jnp.zeros(tokens.features.shape),), (jnp.zeros(table.shape),))
    sums = _each_tile(heads, tiles, tokens, table, zeros, body)
    d_features = sums.by_token[0][jnp.argsort(order)].astype(features.dtype)
    return d_features, sums.by_row[0].astype(table.dtype), None, None, None


_cross_entropy.defvjp(_forward, _backward)
