"""Attention: the formula by hand, visibility, and rows that see nothing."""

import jax
import jax.numpy as jnp
import numpy as np

from fourm_jax.ops import attention


def test_two_keys_are_averaged_by_the_softmax_of_scaled_products():
    q = jnp.array([[[[2.0, 0, 0, 0]]]])
    k = jnp.array([[[[1.0, 0, 0, 0]], [[0, 0, 0, 0.0]]]])
    v = jnp.array([[[[1.0, 0, 0, 0]], [[0, 1.0, 0, 0]]]])
    weight = np.exp(1) / (np.exp(1) + 1)  # 2 · 1 / sqrt(4) against 0
    np.testing.assert_allclose(
        attention.attend(q, k, v)[0, 0, 0], [weight, 1 - weight, 0, 0], rtol=1e-6
    )


def test_visibility_joins_segments_orders_and_padding():
    seen = attention.Visibility(
        query_segment=jnp.array([[0, 0, 1]]),
        key_segment=jnp.array([[0, 0, 1, -1]]),
        query_order=jnp.array([[0, 1, 0]]),
        key_order=jnp.array([[0, 1, 0, 0]]),
    ).mask()
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]
    np.testing.assert_array_equal(seen[0, 0], np.array(expected, bool))


def test_a_query_that_sees_nothing_gets_zero_and_finite_gradients():
    x = jax.random.normal(jax.random.key(0), (1, 3, 2, 4))
    mask = attention.sees_valid(jnp.zeros((1, 3), bool), 3)
    np.testing.assert_array_equal(attention.attend(x, x, x, mask), 0)
    gradient = jax.jit(jax.grad(lambda x: attention.attend(x, x, x, mask).sum()))(x)
    assert bool(jnp.isfinite(gradient).all())
    empty = x[:, :0]
    np.testing.assert_array_equal(attention.attend(x, empty, empty), 0)


def test_masked_keys_equal_absent_keys():
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 4, 2, 8))
    mask = attention.sees_valid(jnp.arange(4) < jnp.array([[3], [3]]), 4)
    np.testing.assert_allclose(
        attention.attend(q, k, v, mask), attention.attend(q, k[:, :3], v[:, :3]), atol=1e-6
    )
