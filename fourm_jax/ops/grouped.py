"""Cross-entropy where each token meets its own output head only, tile by tile.

The heads of a model with many modalities hold far more rows than any one of them; evaluating all
of them for every token would double the cost of the model, and a [tokens, all rows] array would
not fit. Tokens are sorted by head and cut into tiles; every tile is one dense product with its own
head, in a loop whose length follows the tokens that are really there.

A CPU gets tiles of one small size, which waste little and stay in its caches. An accelerator gets
the smallest of a few sizes that holds all tokens of a head: reading a head and adding to its
gradient then happens once per head instead of once per tile, and products are large.
`jax.lax.ragged_dot` says the same in one call but is grouped on TPU only.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Shaped

SMALLEST_TILE, LARGEST_TILE = 32, 1024  # on a CPU
TILES = (512, 1024, 2048, 3072, 4096, 8192)  # on an accelerator; the last bounds the logits' memory
TOKEN_AXES = ("data", "fsdp", "tensor")


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
    results are 0 and False where `valid` is False. Under a mesh (`jax.set_mesh`) every device
    handles its own tokens against the whole table.

    Args:
      features: decoder outputs.
      table: all heads, one after the other.
      group: which head each token meets: index into `offsets` and `sizes`.
      ids: what to predict, 0 .. sizes[group] - 1.
      offsets, sizes: first row and number of rows of each head.
      tiles: allowed numbers of tokens per product, ascending; empty = as fits the device and the
        number of tokens.
    """
    axes, num_shards = _token_axes(len(ids))
    tiles = tiles or _fitting_tiles(len(ids) // num_shards, len(sizes))
    compute = functools.partial(_cross_entropy, offsets, sizes, tiles)
    if num_shards > 1:
        tokens = P(axes)
        compute = jax.shard_map(
            compute,
            in_specs=(tokens, P(), tokens, tokens, tokens),
            out_specs=(tokens, tokens),
            check_vma=False,  # replicated inputs get their gradient summed over the devices
        )
    return compute(features, table, *map(jnp.asarray, (group, ids, valid)))


def _token_axes(num_tokens: int) -> tuple[tuple[str, ...], int]:
    """Mesh axes that the tokens are divided over, and how many parts that makes."""
    mesh = jax.sharding.get_abstract_mesh()
    axes: tuple[str, ...] = ()
    parts = 1
    for name in TOKEN_AXES if not mesh.empty else ():
        if num_tokens % (parts * mesh.shape.get(name, 1)) == 0 and name in mesh.shape:
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


def _each_tile(
    tiles: tuple[int, ...],
    offsets: tuple[int, ...],
    sizes: tuple[int, ...],
    tokens: _Sorted,
    table: Float[Array, "rows d"],
    carry: Any,
    body: Callable[..., tuple[tuple[Array, ...], tuple[Array, ...]]],
    merge: Callable[..., Any],
) -> Any:
    """Loop over all non-empty tiles, one loop per distinct head size.

    `body(start, is_own, features, ids, head)` computes one tile: sorted tokens from `start` on, of
    which `is_own` are of this head. It returns arrays by token and by row of the head;
    `merge(carry, start, is_own, first_row, *arrays)` puts them into `carry`. Of several tile sizes
    the smallest one that holds the head's tokens is taken, and its arrays by token are filled up
    to the largest, so that the large arrays of the carry stay outside of the branches.
    """
    largest = tiles[-1]
    for size in sorted(set(sizes)):
        heads = np.flatnonzero(np.array(sizes) == size)
        first_rows = jnp.asarray(np.array(offsets)[heads])
        starts, counts = tokens.starts[heads], tokens.counts[heads]
        num_tiles = -(-counts // largest)
        ends = jnp.cumsum(num_tiles)

        def step(
            i: Int[Array, ""],
            carry: Any,
            size: int = size,
            ends: Array = ends,
            num_tiles: Array = num_tiles,
            starts: Array = starts,
            counts: Array = counts,
            first_rows: Array = first_rows,
        ) -> Any:
            g = (i >= ends).sum()
            skipped = (i - (ends[g] - num_tiles[g])) * largest
            start, left = starts[g] + skipped, counts[g] - skipped
            head = jax.lax.dynamic_slice_in_dim(table, first_rows[g], size)
            head = head.astype(tokens.features.dtype)

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
            return merge(carry, start, is_own, first_rows[g], *by_token, *by_row)

        carry = jax.lax.fori_loop(0, ends[-1], step, carry)
    return carry


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _cross_entropy(
    offsets: tuple[int, ...],
    sizes: tuple[int, ...],
    tiles: tuple[int, ...],
    features: Float[Array, "t d"],
    table: Float[Array, "rows d"],
    group: Int[Array, "t"],
    ids: Int[Array, "t"],
    valid: Bool[Array, "t"],
) -> tuple[Float[Array, "t"], Bool[Array, "t"]]:
    return _forward(offsets, sizes, tiles, features, table, group, ids, valid)[0]


def _forward(
    offsets: tuple[int, ...],
    sizes: tuple[int, ...],
    tiles: tuple[int, ...],
    features: Float[Array, "t d"],
    table: Float[Array, "rows d"],
    group: Int[Array, "t"],
    ids: Int[Array, "t"],
    valid: Bool[Array, "t"],
) -> tuple[tuple[Float[Array, "t"], Bool[Array, "t"]], tuple[Array, ...]]:
    tokens, order = _sort(tiles[-1], len(sizes), features, group, ids, valid)

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

    def merge(
        carry: tuple[Array, ...],
        start: Int[Array, ""],
        is_own: Bool[Array, "tile"],
        first_row: Int[Array, ""],
        *parts: Array,
    ) -> tuple[Array, ...]:
        del first_row
        return tuple(_merge(c, part, start, is_own) for c, part in zip(carry, parts, strict=True))

    zeros = jnp.zeros(len(tokens.ids))
    loss, correct, log_sum = _each_tile(
        tiles, offsets, sizes, tokens, table, (zeros, zeros > 0, zeros), body, merge
    )
    back = jnp.argsort(order)
    return (loss[back], correct[back]), (features, table, group, ids, valid, log_sum)


def _backward(
    offsets: tuple[int, ...],
    sizes: tuple[int, ...],
    tiles: tuple[int, ...],
    saved: tuple[Array, ...],
    gradients: tuple[Array, Any],
) -> tuple[Float[Array, "t d"], Float[Array, "rows d"], None, None, None]:
    features, table, group, ids, valid, log_sum = saved
    tokens, order = _sort(tiles[-1], len(sizes), features, group, ids, valid)
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

    def merge(
        carry: tuple[Array, Array],
        start: Int[Array, ""],
        is_own: Bool[Array, "tile"],
        first_row: Int[Array, ""],
        d_tile: Float[Array, "tile d"],
        d_head: Float[Array, "size d"],
    ) -> tuple[Array, Array]:
        d_features, d_table = carry
        d_head += jax.lax.dynamic_slice_in_dim(d_table, first_row, len(d_head))
        return (
            _merge(d_features, d_tile, start, is_own),
            jax.lax.dynamic_update_slice_in_dim(d_table, d_head, first_row, 0),
        )

    zeros = (jnp.zeros(tokens.features.shape), jnp.zeros(table.shape))
    d_features, d_table = _each_tile(tiles, offsets, sizes, tokens, table, zeros, body, merge)
    d_features = d_features[jnp.argsort(order)].astype(features.dtype)
    return d_features, d_table.astype(table.dtype), None, None, None


_cross_entropy.defvjp(_forward, _backward)
