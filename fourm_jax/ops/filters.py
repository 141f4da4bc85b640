"""Top-k and nucleus filters of logits, without a sort: the threshold is found by bisection.

Sorting a vocabulary costs an accelerator or a CPU more than the network behind it. What the filters
keep is defined by the sorted order all the same, ties included.
"""

import itertools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from fourm_jax.ops import each_device
from fourm_jax.utils import hardware

LARGEST_FUSED = 2**15  # numbers of a row that one program of a GPU or a TPU can hold


def check_filters(top_k: int | float, top_p: float) -> None:
    """Check the settings of the filters.

    Raises:
      ValueError: negative or non-integer count in `top_k` (a float must lie in [0, 1]), or
        `top_p` outside [0, 1].
    """
    if top_k < 0 or (isinstance(top_k, float) and top_k > 1):
        raise ValueError(f"top_k {top_k!r}, allowed: an int >= 0 (count) or a float in [0, 1]")
    if not 0 <= top_p <= 1:
        raise ValueError(f"top_p {top_p!r}, allowed: 0 (off) to 1")


def filter_top_k(logits: Float[Array, "*n v"], top_k: int | float) -> Float[Array, "*n v"]:
    """Set all but the `top_k` largest logits to -inf; ties with the last one kept stay.

    Args:
      logits: any real values, or -inf.
      top_k: int: how many; float in [0, 1]: which share of the vocabulary
        (docs/published.md#generation); 0 keeps everything.
    """
    vocab_size = logits.shape[-1]
    count = max(int(top_k * vocab_size) if isinstance(top_k, float) else top_k, 1)
    if top_k == 0 or count >= vocab_size:
        return logits
    smallest_kept = threshold(logits, jnp.ones_like(logits), count - 1)
    return jnp.where(logits < smallest_kept[..., None], -jnp.inf, logits)


def filter_top_p(logits: Float[Array, "*n v"], top_p: float) -> Float[Array, "*n v"]:
    """Keep the smallest set of most likely ids whose probability reaches `top_p`; 0 keeps all.

    The id that crosses the threshold stays, so at least one always does. Of equal ids the first
    ones are kept.
    """
    if top_p == 0:
        return logits
    probs = jax.nn.softmax(logits, axis=-1)
    crossing = threshold(logits, probs, top_p)[..., None]
    above, tied = logits > crossing, logits == crossing
    left = top_p - jnp.where(above, probs, 0.0).sum(-1)
    each = jnp.where(tied, probs, 0.0).max(-1)
    num_tied = tied.sum(-1)
    num_kept = num_kept_of_tied(left, each, num_tied)
    kept = above | jax.lax.cond(
        (num_kept < num_tied).any(), _first, lambda mask, _: mask, tied, num_kept
    )
    return jnp.where(kept, logits, -jnp.inf)


def num_kept_of_tied(
    left: Float[Array, "*n"], each: Float[Array, "*n"], num_tied: Int[Array, "*n"]
) -> Int[Array, "*n"]:
    """How many of equal ids a nucleus keeps: the i-th has i others like itself before it.

    Args:
      left: of the nucleus's mass, what the more likely ids do not take.
      each: probability of one of them; 0: all are kept.
    """
    num_kept = jnp.floor(left / jnp.where(each > 0, each, 1.0)) + 1
    return jnp.where(each > 0, jnp.clip(num_kept, 1, num_tied), num_tied).astype(jnp.int32)


def threshold(
    values: Float[Array, "*n v"], weights: Float[Array, "*n v"], budget: float | Array
) -> Float[Array, "*n"]:
    """Return the smallest of the values such that those above it weigh at most `budget`.

        values 3 1 2, weights .5 .1 .4, budget .6 -> 2 (above it: .5; above 1: .9)

    Bisection over the 2^32 float32 numbers, so exact up to the rounding of the sums. 32 passes over
    the values at most, on TPUs 11 and on NVIDIA GPUs a single one; NaN is not allowed.

    Args:
      values: float32.
      weights: at least 0.
      budget: at least 0; one number, or one per row [*n].
    """
    keys = sortable(values)
    if fits_kernel(values):
        budgets = jnp.broadcast_to(jnp.asarray(budget, jnp.float32), keys.shape[:-1])
        return jax.lax.bitcast_convert_type(_flip(_fused(keys, weights, budgets)), jnp.float32)

    def undecided(bracket):
        low, high = bracket
        return (low < high - 1).any()

    def narrow(bracket):
        low, high = bracket  # too much lies above `low`, not too much above `high`
        for point in _between(low, high, 1 if hardware.platform() == "cpu" else 3):
            mass = jnp.where(keys > point[..., None], weights, 0.0).sum(-1)
            fits, is_inside = mass <= budget, (bracket[0] < point) & (point < bracket[1])
            low = jnp.where(is_inside & ~fits, jnp.maximum(low, point), low)
            high = jnp.where(is_inside & fits, jnp.minimum(high, point), high)
        return low, high

    bracket = keys.min(-1) - 1, keys.max(-1)
    _, high = jax.lax.while_loop(undecided, narrow, bracket)
    return jax.lax.bitcast_convert_type(_flip(high), jnp.float32)


def _between(low: Int[Array, "*n"], high: Int[Array, "*n"], halvings: int) -> list[Array]:
    """Points that halve a bracket, then its halves, and so on: 2^halvings - 1.

    The compiler of an accelerator reads the values once for all. On a CPU each point is a pass.
    """
    points = [low, high]
    for _ in range(halvings):
        halved = [low]
        for a, b in itertools.pairwise(points):
            halved += [(a >> 1) + (b >> 1) + (a & b & 1), b]
        points = halved
    return points[1:-1]


def fits_kernel(values: Float[Array, "*n v"], platforms: tuple[str, ...] = ("gpu",)) -> bool:
    """Whether there are devices of these platforms that divide the rows, and a kernel of theirs can
    hold a row."""
    num_samples = values.shape[0] if values.ndim > 1 else 1
    is_short = values.shape[-1] <= LARGEST_FUSED
    is_there = hardware.platform() in platforms
    return is_there and is_short and each_device.num_parts(num_samples) > 0


def _fused(
    keys: Int[Array, "*n v"], weights: Float[Array, "*n v"], budgets: Float[Array, "*n"]
) -> Int[Array, "*n"]:
    """`fused_threshold.smallest_within` of the rows of each device."""
    from fourm_jax.ops import fused_threshold  # Pallas is slow to import

    def on_device(keys: Array, weights: Array, budgets: Array) -> Array:
        key_rows, weight_rows = (x.reshape(-1, keys.shape[-1]) for x in (keys, weights))
        found = fused_threshold.smallest_within(key_rows, weight_rows, budgets.ravel())
        return found.reshape(budgets.shape)

    own = P(each_device.SAMPLES)
    found: Array = each_device.run(on_device, (own, own, own), own)(keys, weights, budgets)
    return found


def _first(mask: Array, count: Int[Array, "*n"]) -> Array:
    """The first `count` True of every row."""
    return mask & (jnp.cumsum(mask, axis=-1) <= count[..., None])


def sortable(values: Float[Array, "*n"]) -> Int[Array, "*n"]:
    """Integers in the order of the float32 values; the two zeros are equal."""
    values = jnp.where(values == 0, 0.0, values.astype(jnp.float32))
    return _flip(jax.lax.bitcast_convert_type(values, jnp.int32))


def _flip(bits: Int[Array, "*n"]) -> Int[Array, "*n"]:
    """Negative floats count downwards: flip all their bits but the sign; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
