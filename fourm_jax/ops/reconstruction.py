"""Reconstruction losses of tokenizers, by name, and errors in natural units."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

_EPSILON = 1e-8


def mse(prediction: Float[Array, "*s c"], target: Float[Array, "*s c"]) -> Float[Array, ""]:
    """Mean squared error."""
    return jnp.mean(jnp.square(prediction - target))


def mse_colourful(
    prediction: Float[Array, "*s c"], target: Float[Array, "*s c"]
) -> Float[Array, ""]:
    """Mean squared error that counts strong colours more than grey.

    A pixel's weight grows with the spread of its channels. Where things are colourful and what lies
    behind them is not, codes go to things and their outlines instead of textures of the ground.
    """
    spread = jnp.max(target, axis=-1, keepdims=True) - jnp.min(target, axis=-1, keepdims=True)
    return jnp.mean((0.3 + 2.0 * spread) * jnp.square(prediction - target))


def l1(prediction: Float[Array, "*s c"], target: Float[Array, "*s c"]) -> Float[Array, ""]:
    """Mean absolute error."""
    return jnp.mean(jnp.abs(prediction - target))


def smooth_l1(prediction: Float[Array, "*s c"], target: Float[Array, "*s c"]) -> Float[Array, ""]:
    """Huber loss: quadratic below a distance of 1, linear above."""
    return jnp.mean(optax.losses.huber_loss(prediction, target, delta=1.0))


def cosine(prediction: Float[Array, "*s c"], target: Float[Array, "*s c"]) -> Float[Array, ""]:
    """1 - cosine similarity over the channels (published name: cosine_1d)."""
    return 1 - jnp.mean(cosine_similarity(prediction, target))


def cross_entropy(logits: Float[Array, "*s v"], labels: Int[Array, "*s"]) -> Float[Array, ""]:
    """Mean cross-entropy of class logits."""
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses)


def binary_cross_entropy(
    logits: Float[Array, "*s c"], target: Float[Array, "*s c"]
) -> Float[Array, ""]:
    """Mean cross-entropy of sigmoid(logits) against targets in 0..1.

    The published loss of this name is a softmax over probabilities; this one is not
    (docs/published.md#defects).
    """
    return jnp.mean(optax.losses.sigmoid_binary_cross_entropy(logits, target))


LOSSES = {
    function.__name__: function
    for function in (mse, mse_colourful, l1, smooth_l1, cosine, cross_entropy, binary_cross_entropy)
}


def cosine_similarity(a: Float[Array, "*s c"], b: Float[Array, "*s c"]) -> Float[Array, "*s"]:
    """Cosine of the angle between vectors along the last axis."""
    squared = jnp.sum(jnp.square(a), axis=-1) * jnp.sum(jnp.square(b), axis=-1)
    return jnp.sum(a * b, axis=-1) * jax.lax.rsqrt(jnp.maximum(squared, _EPSILON**2))


def psnr(
    prediction: Float[Array, "b *s"], target: Float[Array, "b *s"], peak: float
) -> Float[Array, ""]:
    """Peak signal-to-noise ratio in dB, per sample, then averaged."""
    axes = tuple(range(1, prediction.ndim))
    errors = jnp.mean(jnp.square(prediction - target), axis=axes)
    return jnp.mean(10 * jnp.log10(peak**2 / jnp.maximum(errors, _EPSILON)))


def mean_angular_error_deg(
    prediction: Float[Array, "*s c"], target: Float[Array, "*s c"]
) -> Float[Array, ""]:
    """Mean angle between vectors along the last axis, in degrees."""
    cosines = jnp.clip(cosine_similarity(prediction, target), -1, 1)
    return jnp.mean(jnp.degrees(jnp.arccos(cosines)))
