"""All kernels of the attention entry give one answer: values and gradients, for every visibility.

On a CPU the Pallas kernels run interpreted; what a GPU or TPU has is tried where there is one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.ops import attention, flash, flash_tpu

CASES = ("everybody", "padding", "lengths", "grids and sequences", "nobody", "registers")
SIZES = [(64, 64), (130, 67), (8, 200)]


def visibility(case, n, m):
    """Visibility of `n` queries and `m` keys in two samples."""
    if case == "everybody":
        return None
    if case == "padding":  # one sample full, of the other five keys
        return attention.sees_valid(jnp.arange(m) < jnp.array([[m], [5]]), n)
    if case == "lengths":  # one sample of eight keys, one without any
        valid = jnp.arange(m) < jnp.array([[8], [0]])
        return attention.sees_valid(valid, n, packed=True)
    if case == "registers":  # three keys that always exist, and half of the others
        valid = (jnp.arange(m) < 3) | (jnp.arange(m) % 2 == 0)
        return attention.sees_valid(jnp.broadcast_to(valid, (2, m)), n)
    if case == "nobody":  # the first sample has no key, the second no key of its queries
        return attention.Visibility(jnp.zeros((2, n), int), jnp.array([[-1] * m, [7] * m]))
    rng = np.random.default_rng(0)  # blocks of modalities; odd ones are sequences
    query, key = (jnp.asarray(np.sort(rng.integers(0, 4, (2, size)))) for size in (n, m))
    rank = [jnp.where(x % 2, jnp.arange(x.shape[1]), 0) for x in (query, key)]
    return attention.Visibility(query, jnp.where(key == 2, -1, key), *rank)


def value_and_gradients(function, mask, n, m, dtype):
    draw = np.random.default_rng(1).normal
    q, k, v = (jnp.asarray(draw(size=(2, size, 2, 16)), dtype) for size in (n, m, m))
    weights = jnp.asarray(draw(size=q.shape), jnp.float32)

    def loss(q, k, v):
        out = function(q, k, v, mask)
        return (out * weights).sum(), out

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)


def assert_equal(function, case, n, m, dtype=jnp.float32, atol=1e-5):
    mask = visibility(case, n, m)
    (_, out), gradients = value_and_gradients(function, mask, n, m, dtype)
    (_, expected), expected_gradients = value_and_gradients(attention._xla, mask, n, m, jnp.float32)
    np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=atol)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=4 * atol)
    if case == "lengths":
        assert not np.asarray(out[1]).any()
    if case == "nobody":
        assert not np.asarray(out).any()
        assert not any(np.asarray(g).any() for g in gradients)


def interpreted_flash(q, k, v, mask):
    return flash.flash_attention(q, k, v, attention.flash_masks(mask), interpret=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_the_triton_kernels_equal_the_formula(case, n, m):
    assert_equal(interpreted_flash, case, n, m)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("n", "m"), [(64, 64), (136, 72), (8, 200)])
def test_the_kernels_of_tpus_equal_the_formula(case, n, m):
    def interpreted(q, k, v, mask):
        return flash_tpu.attention(q, k, v, attention.flash_masks(mask), interpret=True)

    assert_equal(interpreted, case, n, m)


@pytest.mark.parametrize(
    ("num_heads", "head_dim", "expected"),
    [(12, 64, 6), (6, 64, 6), (16, 64, 8), (32, 64, 8), (16, 128, 4), (3, 64, 3), (9, 64, 0)],
)
def test_a_program_of_a_tpu_holds_heads_that_fill_tiles_or_all(num_heads, head_dim, expected):
    assert flash_tpu.heads_at_once(num_heads, head_dim) == expected


@pytest.mark.parametrize("case", ["everybody", "padding", "lengths", "nobody"])
def test_the_splash_kernel_equals_the_formula(case):
    assert_equal(functools.partial(attention._splash, interpret=True), case, 128, 256)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("backend", ["cudnn", "triton"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("n", "m"), [(64, 64), (130, 68), (256, 256)])
def test_kernels_of_this_gpu_equal_the_formula(backend, case, n, m):
    function = functools.partial(attention.attend, backend=backend)
    assert_equal(function, case, n, m, dtype=jnp.bfloat16, atol=0.05)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="asks for what a CPU does not have")
@pytest.mark.parametrize("backend", ["cudnn", "triton", "splash", "mosaic"])
def test_a_backend_that_this_machine_lacks_is_named_and_replaced(backend, capsys):
    x = jnp.ones((1, 4, 1, 16))
    attention._say_once.cache_clear()
    np.testing.assert_array_equal(attention.attend(x, x, x, backend=backend), x)
    assert f"{backend!r} needs a" in capsys.readouterr().out


def test_auto_says_nothing_and_an_unknown_backend_is_an_error(capsys):
    x = jnp.ones((1, 4, 1, 16))
    attention.attend(x, x, x)
    assert not capsys.readouterr().out
    with pytest.raises(ValueError, match="flash9"):
        attention.attend(x, x, x, backend="flash9")


@pytest.mark.parametrize(
    ("n", "m", "head_dim", "dtype", "expected"),
    [
        (256, 256, 64, "bfloat16", "triton"),  # as in training
        (64, 128, 64, "bfloat16", "triton"),
        (132, 196, 64, "bfloat16", "cudnn"),  # no whole blocks, as in generation
        (512, 512, 64, "bfloat16", "cudnn"),
        (256, 256, 128, "bfloat16", "cudnn"),
        (131, 256, 64, "bfloat16", "xla"),  # cuDNN takes even numbers of tokens
        (256, 256, 64, "float32", "xla"),
        (0, 256, 64, "bfloat16", "xla"),
    ],
)
def test_a_gpu_takes_our_kernels_for_short_sequences_and_cudnn_for_others(
    monkeypatch, n, m, head_dim, dtype, expected
):
    monkeypatch.setattr(attention.hardware, "platform", lambda: "gpu")
    q, k = (jnp.zeros((2, size, 4, head_dim), dtype) for size in (n, m))
    assert attention._fastest(q, k, None) == expected


@pytest.mark.parametrize(
    ("n", "m", "heads", "dtype", "expected"),
    [
        (256, 256, 12, "bfloat16", "mosaic"),
        (136, 264, 12, "bfloat16", "mosaic"),
        (120, 264, 12, "bfloat16", "xla"),  # 960 queries
        (256, 1024, 12, "bfloat16", "splash"),
        (200, 1024, 12, "bfloat16", "xla"),  # no multiple of 128
        (256, 520, 12, "bfloat16", "xla"),
        (196, 264, 12, "bfloat16", "xla"),
        (256, 256, 9, "bfloat16", "xla"),
        (256, 256, 12, "float32", "xla"),
        (0, 256, 12, "bfloat16", "xla"),
    ],
)
def test_a_tpu_takes_our_kernels_for_short_sequences_and_splash_for_long_ones(
    monkeypatch, n, m, heads, dtype, expected
):
    monkeypatch.setattr(attention.hardware, "platform", lambda: "tpu")
    q, k = (jnp.zeros((8, size, heads, 64), dtype) for size in (n, m))
    assert attention._fastest(q, k, None) == expected


def test_codes_hold_the_largest_segment_and_order():
    segment, order = 2**15 - 1, 2**16 - 1
    low, high, code = flash.codes(
        jnp.array([[segment, segment, 0]]),
        jnp.array([[segment, segment, segment - 1, -1]]),
        jnp.array([[0, order, order]]),
        jnp.array([[0, order, order, 0]]),
    )
    seen = (code[0] >= low[0][:, None]) & (code[0] <= high[0][:, None])
    np.testing.assert_array_equal(seen, [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
