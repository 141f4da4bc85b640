"""Cross-entropy where each token meets its own output head only, tile by tile.

The heads of a model with many modalities hold far more rows than any one of them; evaluating all
of them for every token would double the cost of the model, and a [tokens, all rows] array would
not fit. Tokens are sorted by head and cut into tiles; every tile is one dense product with its own
head, in a loop whose length follows the tokens that are really there.

A CPU gets tiles of one small size, which waste little and stay in its caches. An accelerator gets
the smallest of a few sizes that holds all tokens of a head: reading a head and adding to its
gradient then happens once per head instead of once per tile, and products are large.
`jax.lax.ragged_dot` says the same in one call but is grouped on TPU only.

A loss is a weighted sum over tokens, and the weights are known before it is computed. So its
gradient is made tile by tile together with the loss, while the logits of the tile are at hand; the
backward pass has no product of its own. Without differentiation only the loss is computed.

Under a mesh every device handles its own tokens. Where parameters are cut, a device holds some
columns of all heads; one head after the other is put together, used and dropped, and what belongs
to other devices of its gradient is sent to them at once. So no device ever holds all heads, nor a
gradient of that size, and what is sent is that of any other parameter.
"""

import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from fourm_jax.ops import tiling
from fourm_jax.utils import hardware

SMALLEST_TILE, LARGEST_TILE = 32, 1024  # on a CPU
TILES = (512, 1024, 2048, 3072, 4096, 8192)  # on a GPU; the last bounds the logits' memory
# On a TPU, whose compiler takes a second or more for each product, and which has less memory.
TPU_TILES = (512, 2048)
TOKEN_AXES = ("data", "fsdp", "tensor")
COLUMN_AXES = ("fsdp", "tensor")  # that the columns of the table are divided over


@flax.struct.dataclass
class GroupedLoss:
    """Cross-entropy of tokens under their own heads.

    Attributes:
      total: sum of the losses, each times its weight; the only one that has a gradient.
      by_token: -log softmax(features · headᵀ)[id], float32; 0 where the token is not valid.
      correct: whether the id has the highest logit; False where the token is not valid.
    """

    total: Float[Array, ""]
    by_token: Float[Array, "t"]
    correct: Bool[Array, "t"]


def grouped_cross_entropy(
    features: Float[Array, "t d"],
    table: Float[Array, "rows d"],
    group: Int[Array, "t"],
    ids: Int[Array, "t"],
    valid: Bool[Array, "t"],
    weights: Float[Array, "t"],
    *,
    offsets: tuple[int, ...],
    sizes: tuple[int, ...],
    tiles: tuple[int, ...] = (),
    z_loss: float = 0.0,
) -> GroupedLoss:
    """Compute the loss of every token, and their weighted sum.

    Products run in the dtype of `features` with float32 sums; softmax and loss in float32. Tokens
    and columns of the table are divided over the mesh of `jax.set_mesh`, as far as they divide.

    Args:
      features: decoder outputs.
      table: all heads, one after the other.
      group: which head each token meets: index into `offsets` and `sizes`.
      ids: what to predict, 0 .. sizes[group] - 1.
      valid: which tokens there are.
      weights: of the tokens in the sum; they have no gradient.
      offsets, sizes: first row and number of rows of each head.
      tiles: allowed numbers of tokens per product, ascending; empty = as fits the device and the
        number of tokens.
      z_loss: adds so many times (log sum of exp of the logits)² to each loss, which keeps that sum
        near 1 (arXiv:2204.02311, section 5).
    """
    axes, num_shards = _dividing(TOKEN_AXES, len(ids))
    columns, num_cuts = _dividing(COLUMN_AXES, table.shape[1])
    tiles = tiles or _fitting_tiles(len(ids) // num_shards, len(sizes))
    heads = tiling.Heads(offsets, sizes, columns if num_cuts > 1 else ())
    compute = functools.partial(_cross_entropy, heads, tiles, z_loss)
    if num_shards > 1:
        tokens = P(axes)
        compute = jax.shard_map(
            compute,
            in_specs=(tokens, P(None, heads.columns), *[tokens] * 4),
            out_specs=(tokens, tokens, tokens),
            check_vma=False,  # replicated inputs get their gradient summed over the devices
        )
    per_token = map(jnp.asarray, (group, ids, valid, weights))
    totals, by_token, correct = compute(features, table, *per_token)
    return GroupedLoss(totals.sum(), by_token, correct)


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
        sizes = TPU_TILES if hardware.platform() == "tpu" else TILES
        fewer = [tile for tile in sizes if tile < num_tokens]
        return (*fewer, sizes[len(fewer)]) if len(fewer) < len(sizes) else sizes
    half = max(num_tokens // (2 * num_groups), 1)  # little waste in the last tile of a head
    return (min(max(2 ** (half.bit_length() - 1), SMALLEST_TILE), LARGEST_TILE),)


# Sums of the tokens of one device [1], losses and hits of its tokens.
_Losses = tuple[Float[Array, "1"], Float[Array, "t"], Bool[Array, "t"]]
# Gradients of the sum with respect to features and table.
_Gradients = tuple[Float[Array, "t d"], Float[Array, "rows columns"]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _cross_entropy(
    heads: tiling.Heads,
    tiles: tuple[int, ...],
    z_loss: float,
    features: Float[Array, "t d"],
    table: Float[Array, "rows columns"],
    group: Int[Array, "t"],
    ids: Int[Array, "t"],
    valid: Bool[Array, "t"],
    weights: Float[Array, "t"],
) -> _Losses:
    tokens, order = tiling.sort(tiles[-1], len(heads.sizes), features, group, ids, valid)

    def body(
        start: Int[Array, ""],
        is_own: Bool[Array, "tile"],
        features: Float[Array, "tile d"],
        ids: Int[Array, "tile"],
        head: Float[Array, "size d"],
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        del start, is_own
        loss, correct, log_sum = _of_logits(_logits(features, head), ids)
        return (loss + z_loss * log_sum**2 if z_loss else loss, correct), ()

    zeros = jnp.zeros(len(tokens.ids))
    sums = tiling.each_tile(heads, tiles, tokens, table, tiling.Sums((zeros, zeros > 0)), body)
    loss, correct = (x[jnp.argsort(order)] for x in sums.by_token)
    return (loss * weights).sum()[None], loss, correct


def _forward(
    heads: tiling.Heads, tiles: tuple[int, ...], z_loss: float, *arguments: Any
) -> tuple[_Losses, _Gradients]:
    """Losses and, of every tile while it is there, the gradients.

    Args:
      arguments: those of `_cross_entropy`, each as the `value` of a `CustomVJPPrimal`.
    """
    features, table, group, ids, valid, weights = (x.value for x in arguments)
    tokens, order = tiling.sort(tiles[-1], len(heads.sizes), features, group, ids, valid)
    sorted_weights = jnp.pad(weights[order], (0, tiles[-1]))

    def body(
        start: Int[Array, ""],
        is_own: Bool[Array, "tile"],
        features: Float[Array, "tile d"],
        ids: Int[Array, "tile"],
        head: Float[Array, "size d"],
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        logits = _logits(features, head)
        loss, correct, log_sum = _of_logits(logits, ids)
        weight = jax.lax.dynamic_slice_in_dim(sorted_weights, start, len(is_own))
        hit = ids[:, None] == jnp.arange(len(head))
        share = jnp.exp(logits - log_sum[:, None])
        if z_loss:
            loss += z_loss * log_sum**2
            share *= 1 + 2 * z_loss * log_sum[:, None]
        d_logits = (share - hit) * weight[:, None]
        # the rows of other heads in this tile do not belong into the sum over tokens
        d_logits = jnp.where(is_own[:, None], d_logits, 0).astype(head.dtype)
        d_tile = jnp.einsum("tv,vd->td", d_logits, head, preferred_element_type=jnp.float32)
        d_head = jnp.einsum("tv,td->vd", d_logits, features, preferred_element_type=jnp.float32)
        return (loss, correct, d_tile.astype(features.dtype)), (d_head,)

    zeros = jnp.zeros(len(tokens.ids))
    by_token = (zeros, zeros > 0, jnp.zeros_like(tokens.features))
    nothing = tiling.Sums(by_token, (jnp.zeros(table.shape),))
    sums = tiling.each_tile(heads, tiles, tokens, table, nothing, body)
    loss, correct, d_features = (x[jnp.argsort(order)] for x in sums.by_token)
    total = (loss * weights).sum()[None]
    return (total, loss, correct), (d_features, sums.by_row[0].astype(table.dtype))


def _backward(
    heads: tiling.Heads,
    tiles: tuple[int, ...],
    z_loss: float,
    gradients: _Gradients,
    cotangents: tuple[Any, Any, Any],
) -> tuple[Float[Array, "t d"], Float[Array, "rows columns"], None, None, None, None]:
    """Raises ValueError where a loss by token is differentiated: that would go unnoticed."""
    del heads, tiles, z_loss
    if not isinstance(cotangents[1], jax.custom_derivatives.SymbolicZero):
        raise ValueError("losses by token have no gradient; use the total, with weights")
    d_features, d_table = (g * cotangents[0].astype(g.dtype) for g in gradients)
    return d_features, d_table, None, None, None, None


_cross_entropy.defvjp(_forward, _backward, symbolic_zeros=True)


def _logits(
    features: Float[Array, "tile d"], head: Float[Array, "size d"]
) -> Float[Array, "tile size"]:
    return jnp.einsum("td,vd->tv", features, head, preferred_element_type=jnp.float32)


def _of_logits(
    logits: Float[Array, "tile size"], ids: Int[Array, "tile"]
) -> tuple[Float[Array, "tile"], Bool[Array, "tile"], Float[Array, "tile"]]:
    """Losses, hits, and logarithms of the sums of exponentials."""
    label = jnp.take_along_axis(logits, ids[:, None], axis=1, mode="clip")[:, 0]
    highest = logits.max(axis=1)
    log_sum = jnp.log(jnp.exp(logits - highest[:, None]).sum(axis=1)) + highest
    return log_sum - label, label >= highest, log_sum
