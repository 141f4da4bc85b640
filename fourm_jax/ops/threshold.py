"""The value above which the others weigh at most so much, found without a sort.

Sorting a vocabulary costs an accelerator or a CPU more than the network behind it. A kernel of a
GPU reads the values once, other accelerators halve at seven points per pass, and a CPU, to which a
pass at seven points is seven passes, aims.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from fourm_jax.ops import each_device
from fourm_jax.utils import hardware

LARGEST_FUSED = 2**15  # numbers of a row that one program of a GPU or a TPU can hold
NUM_AIMED = 20  # passes, after which a CPU halves; ten to fifteen do for most rows
ROUNDING = 1e-6  # of sums, as a share of all weights

Weigh = Callable[[Array], Array]


def smallest_within(
    values: Float[Array, "*n v"], weigh: Weigh, budget: float | Array
) -> Float[Array, "*n"]:
    """Return the smallest of the values such that those above it weigh at most `budget`.

        values 3 1 2, weights .5 .1 .4, budget .6 -> 2 (above it: .5; above 1: .9)

    Exact up to the rounding of the sums. Where -inf is the answer, it may be any value up to the
    smallest finite one. At most 32 passes over the values on a CPU after `NUM_AIMED`, on TPUs 11
    and on NVIDIA GPUs a single one; NaN is not allowed.

    Args:
      values: float32.
      weigh: weights of values [*n, any number], at least 0, that never fall where values rise.
      budget: at least 0; one number, or one per row [*n].
    """
    budgets = jnp.broadcast_to(jnp.asarray(budget, jnp.float32), values.shape[:-1])
    if hardware.platform() == "cpu":
        return _aim(values, weigh, budgets)
    keys, weights = sortable(values), weigh(values)
    if fits_kernel(values):
        return from_sortable(_fused(keys, weights, budgets))
    return _halve(keys, weights, budgets)


class _Bracket(NamedTuple):
    """Where the value is looked for: too much lies above `low`, not too much above `high`.

    Attributes:
      low, high: as `sortable` integers.
      over: what those above `low` weigh beyond the budget.
      under: what those above `high` leave of it.
      pull_low, pull_high: the same, halved each time that the other end moves once more.
      moved: which end was the last to move: -1 `high`, 1 `low`.
      is_open: whether there is more than one value between the ends.
      num_passes: so far.
    """

    low: Int[Array, "*n"]
    high: Int[Array, "*n"]
    over: Float[Array, "*n"]
    under: Float[Array, "*n"]
    pull_low: Float[Array, "*n"]
    pull_high: Float[Array, "*n"]
    moved: Int[Array, "*n"]
    is_open: Bool[Array, "*n"]
    num_passes: Int[Array, ""]


def _aim(
    values: Float[Array, "*n v"], weigh: Weigh, budgets: Float[Array, "*n"]
) -> Float[Array, "*n"]:
    """`smallest_within` by false position after the Illinois rule, which halves the pull of an end
    that stays.

    What lies above a value is nearly a straight line over its exponential, and what is left between
    the ends weighs less than two of the lightest there once it is one value.
    """
    keys, weights = sortable(values), weigh(values)
    total = weights.sum(-1)

    def is_open(low: Array, high: Array, between: Array) -> Array:
        lightest = weigh(from_sortable(low)[..., None])[..., 0]
        return (low < high - 1) & ~(between + ROUNDING * total < 2 * lightest)

    def narrow(now: _Bracket) -> _Bracket:
        point = _aimed_at(now)
        left = budgets - jnp.where(keys > point[..., None], weights, 0.0).sum(-1)
        is_inside = (now.low < point) & (point < now.high)  # else the row is done
        fits, exceeds = is_inside & (left >= 0), is_inside & (left < 0)
        low, high = jnp.where(exceeds, point, now.low), jnp.where(fits, point, now.high)
        over, under = jnp.where(exceeds, -left, now.over), jnp.where(fits, left, now.under)
        pull_low = jnp.where(now.moved < 0, 0.5 * now.pull_low, over)
        pull_high = jnp.where(now.moved > 0, 0.5 * now.pull_high, under)
        return _Bracket(
            low,
            high,
            over,
            under,
            jnp.where(fits, pull_low, over),
            jnp.where(fits, under, pull_high),
            jnp.where(fits, -1, 1),
            is_open(low, high, over + under),
            now.num_passes + 1,
        )

    finite = jnp.where(values > -jnp.inf, values, jnp.inf)
    low, high, over = sortable(finite.min(-1)) - 1, sortable(values.max(-1)), total - budgets
    unmoved, going = jnp.zeros_like(low), is_open(low, high, total)
    begun = _Bracket(low, high, over, budgets, over, budgets, unmoved, going, jnp.int32(0))
    found = jax.lax.while_loop(lambda now: now.is_open.any(), narrow, begun)
    return jnp.where(keys <= found.high[..., None], values, -jnp.inf).max(-1)


def _aimed_at(now: _Bracket) -> Int[Array, "*n"]:
    """A point inside the ends, where a straight line over exponentials meets the budget; after
    `NUM_AIMED` passes halfway."""
    low, high = from_sortable(now.low), from_sortable(now.high)
    lowest = jnp.exp(low - high)
    share = now.pull_low / (now.pull_low + now.pull_high)
    aimed = high + jnp.log(lowest + (1 - lowest) * share)
    inside = jnp.clip(sortable(aimed), now.low + 1, now.high - 1)
    is_usable = jnp.isfinite(aimed) & (now.num_passes < NUM_AIMED)
    return jnp.where(is_usable, inside, _middle(now.low, now.high))


def _halve(
    keys: Int[Array, "*n v"], weights: Float[Array, "*n v"], budgets: Float[Array, "*n"]
) -> Float[Array, "*n"]:
    """`smallest_within` by bisection over the 2^32 float32 numbers."""

    def undecided(bracket: tuple[Array, Array]) -> Array:
        low, high = bracket
        return (low < high - 1).any()

    def narrow(bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket  # too much lies above `low`, not too much above `high`
        for point in _between(low, high, 3):
            mass = jnp.where(keys > point[..., None], weights, 0.0).sum(-1)
            fits, is_inside = mass <= budgets, (bracket[0] < point) & (point < bracket[1])
            low = jnp.where(is_inside & ~fits, jnp.maximum(low, point), low)
            high = jnp.where(is_inside & fits, jnp.minimum(high, point), high)
        return low, high

    _, high = jax.lax.while_loop(undecided, narrow, (keys.min(-1) - 1, keys.max(-1)))
    return from_sortable(high)


def _between(low: Int[Array, "*n"], high: Int[Array, "*n"], halvings: int) -> list[Array]:
    """Points that halve a bracket, then its halves, and so on: 2^halvings - 1.

    The compiler of an accelerator reads the values once for all.
    """
    points = [low, high]
    for _ in range(halvings):
        halved = [low]
        for a, b in itertools.pairwise(points):
            halved += [_middle(a, b), b]
        points = halved
    return points[1:-1]


def _middle(a: Int[Array, "*n"], b: Int[Array, "*n"]) -> Int[Array, "*n"]:
    """Halfway between integers whose sum may be too large for 32 bits."""
    return (a >> 1) + (b >> 1) + (a & b & 1)


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


def sortable(values: Float[Array, "*n"]) -> Int[Array, "*n"]:
    """Integers in the order of the float32 values; the two zeros are equal."""
    values = jnp.where(values == 0, 0.0, values.astype(jnp.float32))
    return _flip(jax.lax.bitcast_convert_type(values, jnp.int32))


def from_sortable(keys: Int[Array, "*n"]) -> Float[Array, "*n"]:
    """The float32 values of `sortable` integers."""
    return jax.lax.bitcast_convert_type(_flip(keys), jnp.float32)


def _flip(bits: Int[Array, "*n"]) -> Int[Array, "*n"]:
    """Negative floats count downwards: flip all their bits but the sign; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
