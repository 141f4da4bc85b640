"""Drawing tokens from logits: filters, temperature, guidance and confidences, as pure functions."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

ZERO_TEMPERATURE = 1e-10  # below it the most likely token is taken


@runtime_checkable
class Draw(Protocol):
    """Picks one id per row of log-probabilities [..., V]."""

    def __call__(self, key: Key[Array, ""], logits: Float[Array, "*n v"]) -> Int[Array, "*n"]: ...


def draw_categorical(key: Key[Array, ""], logits: Float[Array, "*n v"]) -> Int[Array, "*n"]:
    """Draw an id from softmax(logits)."""
    return jax.random.categorical(key, logits)


def draw_most_likely(key: Key[Array, ""], logits: Float[Array, "*n v"]) -> Int[Array, "*n"]:
    """Take the most likely id; `key` stays unused, confidences keep their meaning."""
    del key
    return jnp.argmax(logits, axis=-1)


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
      logits: any real values.
      top_k: int: how many; float in [0, 1]: which share of the vocabulary; 0 keeps
        everything (docs/published.md#generation).
    """
    vocab_size = logits.shape[-1]
    count = int(top_k * vocab_size) if isinstance(top_k, float) else top_k
    if top_k == 0 or count >= vocab_size:
        return logits
    smallest_kept = jax.lax.top_k(logits, max(count, 1))[0][..., -1:]
    return jnp.where(logits < smallest_kept, -jnp.inf, logits)


def filter_top_p(logits: Float[Array, "*n v"], top_p: float) -> Float[Array, "*n v"]:
    """Keep the smallest set of most likely ids whose probability reaches `top_p`; 0 keeps all.

    The id that crosses the threshold stays, so at least one always does.
    """
    if top_p == 0:
        return logits
    order = jnp.argsort(-logits, axis=-1)
    probs = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
    before = jnp.cumsum(probs, axis=-1) - probs
    # The first id stays whatever rounding does to `before`.
    kept = (before <= top_p).at[..., 0].set(True)
    kept = jnp.take_along_axis(kept, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(kept, logits, -jnp.inf)


def sample(
    keys: Key[Array, "b"],
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
      keys: one key per row, so that a row does not depend on its neighbours.
      logits: float32.
      temperature: may be traced; below 1e-10 the most likely id is taken.
      top_k, top_p: see `filter_top_k`, `filter_top_p`.
      draw: `draw_categorical`, or `draw_most_likely` for reproducible runs.
      as_published: compute the nucleus before the temperature is applied; at temperature 0 all
        confidences are 1, so that ties decide by position. By default the nucleus belongs to the
        distribution drawn from, and the confidence at temperature 0 is the probability at
        temperature 1.

    Returns:
      ids int32, and the probability of each id after filtering and temperature.
    """
    temperature = jnp.asarray(temperature, jnp.float32)
    frozen = jnp.abs(temperature) < ZERO_TEMPERATURE
    divisor = jnp.where(frozen, 1.0, temperature)
    filtered = filter_top_k(logits, top_k)
    if as_published:
        filtered = filter_top_p(filtered, top_p) / divisor
    else:
        filtered = filter_top_p(filtered / divisor, top_p)
    drawn = jax.vmap(draw)(keys, filtered)
    ids = jnp.where(frozen, jnp.argmax(logits, axis=-1), drawn).astype(jnp.int32)
    log_probs = jax.nn.log_softmax(filtered, axis=-1)
    confidence = jnp.exp(jnp.take_along_axis(log_probs, ids[..., None], axis=-1)[..., 0])
    if as_published:
        confidence = jnp.where(frozen, 1.0, confidence)
    return ids, confidence


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
