"""The norm with its own backward pass equals Flax's in values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.ops import norm


def test_two_channels_become_minus_one_and_one_then_scale_and_bias():
    (y,) = norm.layer_norm(
        jnp.array([[1.0, 3.0]]), jnp.array([2.0, 5.0]), jnp.array([0.5, 0.0]), 0.0, jnp.float32
    )
    np.testing.assert_allclose(y, [[-1.5, 5.0]])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients_equal_those_of_flax(dtype):
    x, weights = jax.random.normal(jax.random.key(0), (2, 3, 5, 16)).astype(dtype)
    scale, bias = 1 + 0.1 * jax.random.normal(jax.random.key(1), (2, 16))
    flax_norm = nn.LayerNorm(epsilon=1e-6, dtype=dtype, use_fast_variance=False)

    def total(function):
        def loss(x, scale, bias):
            y = function(x, scale, bias)
            return (y * weights).astype(jnp.float32).sum(), y

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(x, scale, bias)

    actual = total(lambda x, scale, bias: norm.layer_norm(x, scale, bias, 1e-6, dtype)[0])
    expected = total(
        lambda x, scale, bias: flax_norm.apply({"params": {"scale": scale, "bias": bias}}, x)
    )
    tolerance = 1e-5 if dtype == jnp.float32 else 0.05
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            a.astype(jnp.float32), b.astype(jnp.float32), rtol=tolerance, atol=tolerance
        )
