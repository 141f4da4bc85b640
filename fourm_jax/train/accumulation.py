"""A loss over many samples, computed some at a time, with the gradient of all of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# (params, one part of the samples) -> (its share of the loss, values by sample)
PartLoss = Callable[[Any, Any], tuple[Float[Array, ""], Any]]


def loss_of_parts(
    part_loss: PartLoss, num_parts: int, params: Any, samples: Any
) -> tuple[Float[Array, ""], Any]:
    """Return the sum of `part_loss` over equal parts of `samples`, and its values by sample.

    Memory is that of one part. The gradient with respect to `params` is summed up part by part
    while the loss is computed, without computing anything twice; there is none with respect to
    `samples`.

    Args:
      part_loss: its sum over parts must be the loss, so whatever is normalized over all samples
        comes with `samples`.
      num_parts: must divide the number of samples.
      samples: arrays [b, ...].
    """

    def without_gradient(params, parts):
        def add(total, part):
            value, by_sample = part_loss(params, part)
            return total + value, by_sample

        return jax.lax.scan(add, jnp.float32(0), parts)

    def with_gradient(params, parts):
        def add(sums, part):
            (value, by_sample), gradient = jax.value_and_grad(part_loss, has_aux=True)(params, part)
            return jax.tree.map(jnp.add, sums, (value, gradient)), by_sample

        nothing = (jnp.float32(0), jax.tree.map(jnp.zeros_like, params))
        (value, gradient), by_sample = jax.lax.scan(add, nothing, parts)
        return (value, by_sample), gradient

    def backward(gradient, cotangents):
        return jax.tree.map(lambda g: g * cotangents[0], gradient), None

    total = jax.custom_vjp(without_gradient)
    total.defvjp(with_gradient, backward)
    value, by_sample = total(params, jax.tree.map(lambda x: _parts(x, num_parts), samples))
    return value, jax.tree.map(_join, by_sample)


def _parts(x: Array, num_parts: int) -> Array:
    """[b, ...] -> [parts, b / parts, ...]; every part takes samples of every device's range."""
    return jnp.swapaxes(x.reshape(-1, num_parts, *x.shape[1:]), 0, 1)


def _join(x: Array) -> Array:
    return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])
