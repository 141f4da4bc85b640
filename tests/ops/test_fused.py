"""The kernels of norms and gates, interpreted on a CPU, equal the formulas and their gradients."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.models import layers
from fourm_jax.ops import (
    fused,
    fused_draw,
    fused_draw_tpu,
    fused_threshold,
    gate,
    norm,
    sampling,
    threshold,
)

EPSILON = 1e-6
ON_GPU = jax.default_backend() == "gpu"
INTERPRET = not ON_GPU


def arrays(num_rows, dim, dtype=jnp.float32):
    draw = np.random.default_rng(0).normal
    x, d_y, d_kept = (jnp.asarray(draw(size=(num_rows, dim)), dtype) for _ in range(3))
    scale, bias = (jnp.asarray(draw(size=dim), jnp.float32) for _ in range(2))
    return x, scale, bias, d_y, d_kept


@pytest.mark.parametrize(("num_rows", "dim"), [(256, 384), (256, 768), (64, 2048)])
@pytest.mark.parametrize("kept", [False, True])
def test_kernels_of_the_norm_equal_the_formula(num_rows, dim, kept):
    x, scale, bias, d_y, d_kept = arrays(num_rows, dim)
    formula = functools.partial(
        norm._fork, epsilon=EPSILON, dtype=jnp.float32, kernels=False, uses=1
    )
    (_, (expected,)), pull = jax.vjp(formula, x, scale, bias)
    y, mean, inverse = fused.norm_forward(
        x, scale, bias, epsilon=EPSILON, dtype=jnp.float32, interpret=INTERPRET
    )
    np.testing.assert_allclose(y, expected, atol=2e-5)
    actual = fused.norm_backward(
        x, scale, mean, inverse, [d_y], d_kept if kept else None, interpret=INTERPRET
    )
    for a, b in zip(actual, pull((d_kept * kept, (d_y,))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_the_kernel_of_a_norm_with_three_uses_adds_their_gradients_up():
    x, scale, _, d_y, d_kept = arrays(256, 384)
    mean, inverse = x.mean(1), 1 / x.std(1)
    backward = functools.partial(fused.norm_backward, x, scale, mean, inverse, interpret=INTERPRET)
    whole = backward([d_y], d_kept)
    parts = backward([d_y / 4, d_y / 2, d_y / 4], d_kept)  # exact
    jax.tree.map(np.testing.assert_array_equal, parts, whole)


@pytest.mark.parametrize("kind", ["swiglu", "reglu"])
def test_the_kernel_of_the_gate_equals_the_gradients_of_the_formula(kind):
    activation, _ = layers.MLPS[kind]
    a, b, d_y = np.random.default_rng(0).normal(size=(3, 2, fused.BLOCK)).astype(np.float32)
    _, pull = jax.vjp(lambda a, b: activation(a) * b, a, b)
    actual = fused.gate_backward(
        jnp.asarray(a), jnp.asarray(b), jnp.asarray(d_y), activation, interpret=INTERPRET
    )
    for x, expected in zip(actual, pull(jnp.asarray(d_y)), strict=True):
        np.testing.assert_allclose(x, expected, atol=1e-5)


@pytest.mark.parametrize("size", [7, 40])
def test_the_kernel_of_the_threshold_equals_the_bisection(size):
    draw = np.random.default_rng(0)
    logits = draw.integers(-9, 9, (6, size)).astype(np.float32) / 3  # with ties
    logits[0], logits[1, 2:] = 0.0, -np.inf

    def weigh(values):
        return jnp.exp2(jnp.round(values))  # sums are exact

    budget = np.array([0, 0.1, 0.25, 0.5, 2, 1000], np.float32)
    expected = jax.jit(threshold.smallest_within, static_argnums=1)(logits, weigh, budget)
    keys = fused_threshold.smallest_within(
        threshold.sortable(jnp.asarray(logits)), weigh(logits), budget, interpret=INTERPRET
    )
    np.testing.assert_array_equal(keys, threshold.sortable(expected))


@pytest.mark.parametrize("kernel", [fused_draw, fused_draw_tpu])
@pytest.mark.parametrize("temperature", [0.0, 0.5])
@pytest.mark.parametrize("top_p", [0.0, 0.6])
def test_the_kernel_of_the_draw_equals_the_filter_and_the_draw(temperature, top_p, kernel):
    random = np.random.default_rng(0)
    logits = random.integers(-9, 9, (11, 40)).astype(np.float32) / 3  # with ties
    logits[0], logits[1, 2:], logits[2, 5] = 0.0, -np.inf, 99.0
    uniform = random.uniform(size=11).astype(np.float32)
    uniform[3:5] = 0.0, np.nextafter(np.float32(1), np.float32(0))
    expected = sampling.sample(uniform[:, None], logits[:, None], temperature, top_p=top_p)
    drawn = kernel.draw(
        jnp.asarray(uniform),
        jnp.asarray(logits),
        jnp.float32(temperature or 1.0),
        jnp.asarray(temperature == 0),
        top_p=top_p,
        interpret=INTERPRET or kernel is fused_draw_tpu,
    )
    np.testing.assert_array_equal(drawn[0], expected[0][:, 0])
    np.testing.assert_allclose(drawn[1], expected[1][:, 0], rtol=1e-5)


def test_a_norm_that_keeps_its_input_adds_the_gradients_of_both_results():
    x, scale, bias, d_y, d_kept = arrays(6, 8)

    def both(x, scale, bias):
        return x, norm.layer_norm(x, scale, bias, EPSILON, jnp.float32)

    def fork(x, scale, bias):
        return norm.fork_norm(x, scale, bias, EPSILON, jnp.float32, 2)

    expected, pull = jax.vjp(both, x, scale, bias)
    actual, pull_fork = jax.vjp(fork, x, scale, bias)
    jax.tree.map(np.testing.assert_array_equal, actual, (expected[0], expected[1] * 2))
    two = (d_y / 4, 3 * d_y / 4)
    for a, b in zip(pull_fork((d_kept, two)), pull((d_kept, (d_y,))), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_rows_are_cut_into_powers_of_two_and_odd_sizes_are_left_to_xla():
    assert fused.pieces(768) == (slice(0, 512), slice(512, 768))
    assert fused.pieces(2048) == (slice(0, 2048),)
    assert not fused.pieces(1000)  # six pieces
    assert fused.norm_fits(256 * 256, 768) and fused.norm_fits(32 * 256, 2048)
    assert not fused.norm_fits(7, 768)
    assert fused.gate_fits(2 * fused.BLOCK, nn.silu)
    assert not fused.gate_fits(fused.BLOCK + 1, nn.silu)
    assert not fused.gate_fits(fused.BLOCK, layers.exact_gelu)


@pytest.mark.skipif(not ON_GPU, reason="needs an NVIDIA GPU")
def test_the_kernels_of_this_gpu_are_as_exact_as_the_formula_in_bfloat16():
    x, scale, bias, d_y, d_kept = arrays(4096, 768, jnp.bfloat16)
    assert norm.uses_kernels(x)

    def results(kernels):
        function = functools.partial(
            norm._fork, epsilon=EPSILON, dtype=jnp.bfloat16, kernels=kernels, uses=2
        )
        (_, (y, _)), pull = jax.vjp(function, x, scale, bias)
        return y, *pull((d_kept, (d_y, d_y)))

    for a, b in zip(jax.jit(results, static_argnums=0)(True), results(False), strict=True):
        scaled = np.abs(np.asarray(a - b, np.float32)).max() / np.abs(np.asarray(b)).max()
        assert scaled < 2e-2
    _, pull = jax.vjp(lambda a, b: gate.gated(a, b, nn.silu, len(a)), x, d_kept)
    _, expected = jax.vjp(lambda a, b: nn.silu(a) * b, x.astype(jnp.float32), d_kept)
    for a, b in zip(pull(d_y), expected(d_y.astype(jnp.float32)), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), atol=0.1)
