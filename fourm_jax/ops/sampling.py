"""Drawing tokens from logits: temperature, guidance and confidences, as pure functions."""

import functools
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Key

from fourm_jax.ops import each_device, filters, threshold
from fourm_jax.utils import hardware

ZERO_TEMPERATURE = 1e-10  # below it the most likely token is taken
BLOCK = 128  # ids whose probabilities are cumulated together
IN_CACHE = 2**15  # logits that a core of a CPU keeps at hand while it filters and draws


@runtime_checkable
class Draw(Protocol):
    """Picks one id per row of logits [..., V], -inf = never; one random number in [0, 1) each."""

    def __call__(
        self, uniform: Float[Array, "*n"], logits: Float[Array, "*n v"]
    ) -> Int[Array, "*n"]: ...


def draw_categorical(uniform: Float[Array, "*n"], logits: Float[Array, "*n v"]) -> Int[Array, "*n"]:
    """Draw ids from softmax(logits): the first whose cumulated probability exceeds `uniform`.

    Probabilities are cumulated over blocks of `BLOCK` ids, then inside the one block that is met.
    """
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    padding = -weights.shape[-1] % BLOCK
    weights = jnp.pad(weights, [(0, 0)] * uniform.ndim + [(0, padding)])
    blocks = weights.reshape(*uniform.shape, -1, BLOCK)
    sums = blocks.sum(-1)
    block, rest = _first_above(sums, uniform * sums.sum(-1))
    inside = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    return block * BLOCK + _first_above(inside, rest)[0]


def _first_above(
    weights: Float[Array, "*n k"], level: Float[Array, "*n"]
) -> tuple[Int[Array, "*n"], Float[Array, "*n"]]:
    """First index whose cumulated weight exceeds `level`, and what is left of the level there.

    Never an index without weight, whatever rounding does: beyond the sum it is the last one with.
    """
    cumulated = jnp.cumsum(weights, axis=-1)
    candidate, numbers = weights > 0, jnp.arange(weights.shape[-1])
    above = candidate & (cumulated > level[..., None])
    first = jnp.where(above, numbers, weights.shape[-1]).min(-1)
    last = jnp.where(candidate, numbers, 0).max(-1)
    index = jnp.minimum(first, last)
    before = jnp.where(numbers == index[..., None], cumulated - weights, 0.0).sum(-1)
    return index.astype(jnp.int32), jnp.maximum(level - before, 0.0)


def draw_most_likely(uniform: Float[Array, "*n"], logits: Float[Array, "*n v"]) -> Int[Array, "*n"]:
    """Take the most likely id; `uniform` stays unused, confidences keep their meaning."""
    del uniform
    return jnp.argmax(logits, axis=-1)


def uniforms(keys: Key[Array, "b"], num_positions: int) -> Float[Array, "b m"]:
    """One random number in [0, 1) per row and position, each row from its own key."""
    return jax.vmap(lambda key: jax.random.uniform(key, (num_positions,)))(keys)


def sample(
    uniform: Float[Array, "b m"],
    logits: Float[Array, "b m v"],
    temperature: Float[Array, ""] | float,
    *,
    top_k: int | float = 0,
    top_p: float = 0.0,
    draw: Draw = draw_categorical,
    as_published: bool = False,
) -> tuple[Int[Array, "b m"], Float[Array, "b m"]]:
    """Sample one token per position and return (ids, confidences).

    Args:
      uniform: random numbers in [0, 1), see `uniforms`.
      logits: float32.
      temperature: may be traced; below 1e-10 the most likely id is taken.
      top_k, top_p: see `filters.filter_top_k`, `filters.filter_top_p`.
      draw: `draw_categorical`, or `draw_most_likely` for reproducible runs.
      as_published: compute the nucleus before the temperature is applied; at temperature 0 all
        confidences are 1, so that ties decide by position. By default the nucleus belongs to the
        distribution drawn from, and the confidence at temperature 0 is the probability at
        temperature 1.

    Returns:
      ids int32, and the probability of each id after filtering and temperature.
    """
    rule = functools.partial(
        _sample_rows,
        jnp.asarray(temperature, jnp.float32),
        top_k=top_k,
        top_p=top_p,
        draw=draw,
        as_published=as_published,
    )
    num_rows, at_once = uniform.size, max(IN_CACHE // logits.shape[-1], 1)
    is_alone = each_device.num_parts(1) == 1  # a loop over rows would bring all of them together
    if num_rows <= at_once or hardware.platform() != "cpu" or not is_alone:
        return rule(uniform, logits)
    # A filter reads its rows some ten times: few at once stay in the cache of a core.
    filled = -num_rows % at_once
    uniform_parts = jnp.pad(uniform.ravel(), (0, filled)).reshape(-1, at_once)
    logit_rows = jnp.pad(logits.reshape(num_rows, -1), ((0, filled), (0, 0)))
    logit_parts = logit_rows.reshape(-1, at_once, logits.shape[-1])
    drawn = jax.lax.map(lambda part: rule(*part), (uniform_parts, logit_parts))
    ids, confidence = (x.ravel()[:num_rows].reshape(uniform.shape) for x in drawn)
    return ids, confidence


def _sample_rows(
    temperature: Float[Array, ""],
    uniform: Float[Array, "*n"],
    logits: Float[Array, "*n v"],
    *,
    top_k: int | float,
    top_p: float,
    draw: Draw,
    as_published: bool,
) -> tuple[Int[Array, "*n"], Float[Array, "*n"]]:
    frozen = jnp.abs(temperature) < ZERO_TEMPERATURE
    divisor = jnp.where(frozen, 1.0, temperature)
    is_plain = draw is draw_categorical and not as_published and top_k == 0
    if is_plain and threshold.fits_kernel(logits, ("gpu", "tpu")):
        return _draw_fused(uniform, logits, divisor, frozen, top_p)
    filtered = filters.filter_top_k(logits, top_k)
    if as_published:
        filtered = filters.filter_top_p(filtered, top_p) / divisor
    else:
        filtered = filters.filter_top_p(filtered / divisor, top_p)
    ids = jax.lax.cond(frozen, draw_most_likely, draw, uniform, filtered).astype(jnp.int32)
    log_probs = jax.nn.log_softmax(filtered, axis=-1)
    confidence = jnp.exp(jnp.take_along_axis(log_probs, ids[..., None], axis=-1)[..., 0])
    if as_published:
        confidence = jnp.where(frozen, 1.0, confidence)
    return ids, confidence


def _draw_fused(
    uniform: Float[Array, "*n"],
    logits: Float[Array, "*n v"],
    divisor: Float[Array, ""],
    frozen: Bool[Array, ""],
    top_p: float,
) -> tuple[Int[Array, "*n"], Float[Array, "*n"]]:
    """`fused_draw.draw` of the rows of each device."""
    if hardware.platform() == "tpu":  # Pallas is slow to import, for either
        from fourm_jax.ops.fused_draw_tpu import draw
    else:
        from fourm_jax.ops.fused_draw import draw

    def on_device(
        uniform: Array, logits: Array, divisor: Array, frozen: Array
    ) -> tuple[Array, Array]:
        rows = logits.reshape(-1, logits.shape[-1])
        drawn = draw(uniform.ravel(), rows, divisor, frozen, top_p=top_p)
        picked, likelihood = (x.reshape(uniform.shape) for x in drawn)
        return picked, likelihood

    own, whole = P(each_device.SAMPLES), each_device.WHOLE
    drawn: tuple[Array, Array] = each_device.run(on_device, (own, own, whole, whole), (own, own))(
        uniform, logits, divisor, frozen
    )
    return drawn


def guide(logits: Float[Array, "g b m v"], weights: Float[Array, "g-1"]) -> Float[Array, "b m v"]:
    """Combine the logits of several conditions: l_0 + sum_i w_i (l_i - l_0).

    Entry 0 is the unconditional prediction. One condition is classifier-free guidance (weight 1:
    none, 0: unconditional, negative: away from the condition), several are multi-guidance
    (docs/published.md#generation); with entry 0 alone nothing is combined.
    """
    return logits[0] + jnp.einsum("g,gbmv->bmv", weights, logits[1:] - logits[0])


def keep_most_confident(
    confidence: Float[Array, "b m"], candidate_mask: Bool[Array, "b m"], count: Int[Array, ""] | int
) -> Bool[Array, "b m"]:
    """Mark the `count` most confident candidates of each row; ties go to the first."""
    order = jnp.argsort(jnp.where(candidate_mask, -confidence, jnp.inf), axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1)
    return candidate_mask & (rank < count)


def random_order(keys: Key[Array, "b"], candidate_mask: Bool[Array, "b m"]) -> Int[Array, "b m"]:
    """Positions of each row in random order, candidates first (the others follow by index)."""
    noise = jax.vmap(lambda key: jax.random.uniform(key, candidate_mask.shape[1:]))(keys)
    return jnp.argsort(jnp.where(candidate_mask, noise, 2.0), axis=-1, stable=True)
