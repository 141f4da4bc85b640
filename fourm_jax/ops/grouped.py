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

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from fourm_jax.ops import tiling
from fourm_jax.utils import hardware

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
    heads = tiling.Heads(offsets, sizes, columns if num_cuts > 1 else ())
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
    if hardware.platform() != "cpu":
        fewer = [tile for tile in TILES if tile < num_tokens]
        return (*fewer, TILES[len(fewer)]) if len(fewer) < len(TILES) else TILES
    half = max(num_tokens // (2 * num_groups), 1)  # little waste in the last tile of a head
    return (min(max(2 ** (half.bit_length() - 1), SMALLEST_TILE), LARGEST_TILE),)


def _logits(
    features: Float[Array, "tile d"], head: Float[Array, "size d"]
) -> Float[Array, "tile size"]:
    return jnp.einsum("td,vd->tv", features, head, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _cross_entropy(
    heads: tiling.Heads,
    tiles: tuple[int, ...],
    features: Float[Array, "t d"],
    table: Float[Array, "rows columns"],
    group: Int[Array, "t"],
    ids: Int[Array, "t"],
    valid: Bool[Array, "t"],
) -> tuple[Float[Array, "t"], Bool[Array, "t"]]:
    return _forward(heads, tiles, features, table, group, ids, valid)[0]


def _forward(
    heads: tiling.Heads,
    tiles: tuple[int, ...],
    features: Float[Array, "t d"],
    table: Float[Array, "rows columns"],
    group: Int[Array, "t"],
    ids: Int[Array, "t"],
    valid: Bool[Array, "t"],
) -> tuple[tuple[Float[Array, "t"], Bool[Array, "t"]], tuple[Array, ...]]:
    tokens, order = tiling.sort(tiles[-1], len(heads.sizes), features, group, ids, valid)

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
    nothing = tiling.Sums((zeros, zeros > 0, zeros))
    sums = tiling.each_tile(heads, tiles, tokens, table, nothing, body)
    loss, correct, log_sum = sums.by_token
    back = jnp.argsort(order)
    return (loss[back], correct[back]), (features, table, group, ids, valid, log_sum)


def _backward(
    heads: tiling.Heads,
    tiles: tuple[int, ...],
    saved: tuple[Array, ...],
    gradients: tuple[Array, Any],
) -> tuple[Float[Array, "t d"], Float[Array, "rows columns"], None, None, None]:
    features, table, group, ids, valid, log_sum = saved
    tokens, order = tiling.sort(tiles[-1], len(heads.sizes), features, group, ids, valid)
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

    nothing = tiling.Sums((jnp.zeros(tokens.features.shape),), (jnp.zeros(table.shape),))
    sums = tiling.each_tile(heads, tiles, tokens, table, nothing, body)
    d_features = sums.by_token[0][jnp.argsort(order)].astype(features.dtype)
    return d_features, sums.by_row[0].astype(table.dtype), None, None, None


_cross_entropy.defvjp(_forward, _backward)
