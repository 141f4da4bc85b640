"""The UViT: published sizes, variants, what dropped conditions and long skips do."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.convert import divae_config
from fourm_jax.models.backbones import uvit, uvit_bottleneck
from tests import drawn

SMALL = {
    "num_channels": 1,
    "patch_size": 2,
    "channels": (8, 8),
    "blocks_per_level": 1,
    "dim": 16,
    "num_heads": 2,
    "num_groups": 4,
    "grid": 4,
    "depth": 3,
}
MILLIONS = {
    "uvit_b_p4_f16": 126.75,
    "uvit_l_p4_f16": 391.42,
    "uvit_h_p4_f16": 769.36,
    "uvit_b_p4_f8": 125.57,
    "uvit_b_p4_f16_longskip": 143.29,
    "uvit_b_p4_f16_extraconv": 160.79,
}
VARIANTS = {
    "concat": {},
    "long_skip": {"long_skip": True},
    "xattn": {"conditioning": "xattn", "downsample_bottleneck": False, "long_skip": True},
}


def inputs(size=(16, 8)):
    keys = jax.random.split(jax.random.key(0), 2)
    noised = jax.random.normal(keys[0], (2, *size, 1))
    condition = jax.random.normal(keys[1], (2, size[0] // 8, size[1] // 8, 4))
    return noised, jnp.array([10, 700]), condition


@pytest.fixture(scope="module", params=VARIANTS)
def case(request):
    """Compiled forward pass and parameters without zeros, so that every path matters."""
    module = uvit.UViT(**{**SMALL, **VARIANTS[request.param]})
    shapes = jax.eval_shape(module.init, jax.random.key(1), *inputs())
    return jax.jit(module.apply), drawn.variables(shapes)


@pytest.mark.parametrize(("name", "millions"), MILLIONS.items())
def test_published_decoders_have_their_number_of_parameters(name, millions):
    module = uvit.UViT(num_channels=3, **divae_config.decoders()[name][1])
    shapes = jax.eval_shape(
        module.init,
        jax.random.key(0),
        jnp.zeros((1, 224, 224, 3)),
        jnp.zeros(1, jnp.int32),
        jnp.zeros((1, 14, 14, 32)),
    )
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert round(count / 1e6, 2) == millions


def test_a_dropped_condition_changes_nothing_whatever_it_was(case):
    apply, params = case
    noised, times, condition = inputs()
    mask = jnp.ones((2, 2, 1), bool).at[1, 0].set(False)
    answer = apply(params, noised, times, condition, mask)
    other = apply(params, noised, times, condition.at[1, 0].add(3), mask)
    np.testing.assert_allclose(answer, other, atol=1e-4)
    used = apply(params, noised, times, condition.at[1, 0].add(3), jnp.ones_like(mask))
    assert jnp.abs(answer[1] - used[1]).max() > 1e-2
    np.testing.assert_allclose(answer[0], used[0], atol=1e-4)


def test_a_sample_with_no_condition_at_all_is_finite(case):
    apply, params = case
    noised, times, condition = inputs()
    assert jnp.isfinite(apply(params, noised, times, condition, jnp.zeros((2, 2, 1), bool))).all()


def test_it_starts_by_copying_the_stream_past_closed_gates():
    module = uvit.UViT(**SMALL)
    params = jax.jit(module.init)(jax.random.key(0), *inputs())["params"]["bottleneck"]["blocks"]
    assert not params["gates"]["kernel"].any()


def test_dropout_acts_in_training_only():
    module = uvit.UViT(**{**SMALL, "dropout": 0.5, "depth": 1})
    params = drawn.variables(jax.eval_shape(module.init, jax.random.key(0), *inputs()))

    @jax.jit
    def train(key):
        return module.apply(params, *inputs(), None, True, rngs={"quantizer": key})

    assert jnp.abs(train(jax.random.key(1)) - train(jax.random.key(2))).max() > 1e-4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"long_skip": True, "depth": 2}, "odd depth, got 2"),
        ({"conditioning": "film"}, "conditioning 'film', allowed"),
        ({"patch_size": 3}, "allowed: sides divisible by 12"),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(uvit.UViT(**{**SMALL, **fields}).init, jax.random.key(0), *inputs())


# --- one block, worked out again in numpy -----------------------------------------------------


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def norm(params, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * params["scale"] + params["bias"]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attend(q, k, v):
    """One sample, [n, h, d] and [m, h, d]: every head on its own."""
    weights = softmax(np.einsum("nhd,mhd->hnm", q, k) / np.sqrt(q.shape[-1]))
    return np.einsum("hnm,mhd->nhd", weights, v).reshape(len(q), -1)


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2


def block_by_hand(params, x, earlier, time, context):
    """adaLN-Zero with cross-attention: the published order of shifts, scales and gates."""
    x = dense(params["skip"], np.concatenate([x, earlier], -1))
    active = time / (1 + np.exp(-time))
    shift1, scale1, shift2, scale2, shift3, scale3 = np.split(
        dense(params["modulation"], active), 6
    )
    gate1, gate2, gate3 = np.split(dense(params["gates"], active), 3)
    own = params["self_attention"]
    hidden = norm(params["self_norm"], x) * (1 + scale1) + shift1
    q, k, v = np.moveaxis(
        np.einsum("nd,dchk->nchk", hidden, own["qkv"]["kernel"]) + own["qkv"]["bias"], 1, 0
    )
    heads = attend(q, k, v).reshape(q.shape)
    out = np.einsum("nhk,hkd->nd", heads, own["out"]["kernel"]) + own["out"]["bias"]
    x = x + gate1 * out
    cross = params["cross_attention"]
    hidden = norm(params["query_norm"], x) * (1 + scale2) + shift2
    seen = norm(params["context_norm"], context)
    q = dense(cross["q"], hidden).reshape(len(x), 2, -1)
    k, v = np.moveaxis(dense(cross["kv"], seen).reshape(len(context), 2, 2, -1), 1, 0)
    x = x + gate2 * dense(cross["out"], attend(q, k, v))
    hidden = norm(params["mlp_norm"], x) * (1 + scale3) + shift3
    feed = params["feed_forward"]
    return x + gate3 * dense(feed["fc2"], gelu(dense(feed["fc1"], hidden)))


def test_a_block_with_cross_attention_and_skip_is_what_its_formula_says():
    block = uvit_bottleneck.Block(
        num_heads=2, cross=True, skip=True, dropout=0.0, train=False, dtype=jnp.float32
    )
    rng = np.random.default_rng(0)
    x, earlier = rng.normal(size=(2, 1, 5, 8)).astype(np.float32)
    time = rng.normal(size=(1, 6)).astype(np.float32)
    context = rng.normal(size=(1, 3, 4)).astype(np.float32)
    shared = (x, earlier, time, context, None)
    params = drawn.variables(jax.eval_shape(block.init, jax.random.key(0), *shared))
    found, _ = jax.jit(block.apply)(params, *shared)
    plain = jax.tree.map(np.float64, params["params"])
    expected = block_by_hand(plain, x[0], earlier[0], time[0], context[0])
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_blocks_of_the_first_half_feed_those_of_the_second_in_reverse():
    """Five gateless blocks whose skip layers take the earlier stream only: 1 -> 5, 2 -> 4."""
    bottleneck = uvit_bottleneck.Bottleneck(
        dim=4,
        depth=5,
        num_heads=1,
        long_skip=True,
        conditioning="concat",
        dropout=0.0,
        grid=1,
        dtype=jnp.float32,
    )
    x, time, condition = jnp.ones((1, 1, 1, 4)), jnp.ones((1, 3)), jnp.zeros((1, 1, 1, 2))
    arguments = (x, time, condition, None, False)
    shapes = jax.eval_shape(lambda key: bottleneck.init(key, *arguments), jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)["params"]
    params["tokens_in"]["kernel"] = params["tokens_out"]["kernel"] = np.eye(4, dtype=np.float32)
    # every block adds its own constant: gate 1 times the bias of the MLP
    for name, values in (("blocks_in", [1, 10]), ("block_middle", 100), ("blocks_out", [0, 0])):
        own = params[name]
        own["gates"]["bias"][..., -4:] = 1
        own["feed_forward"]["fc2"]["bias"] += np.asarray(values, np.float32)[..., None]
    # [x, earlier] -> x + weight * earlier, by another weight in each of the last two blocks
    for i, weight in enumerate((2.0, 3.0)):
        kernel = params["blocks_out"]["skip"]["kernel"]
        kernel[i, :4], kernel[i, 4:] = np.eye(4), weight * np.eye(4)
    found = jax.jit(lambda p: bottleneck.apply({"params": p}, *arguments))(params)
    position = np.array([0, 1, 0, 1])  # sin and cos of row 0, then of column 0
    first = 1 + position + 1
    second = first + 10
    np.testing.assert_allclose(found[0, 0, 0], second + 100 + 2 * second + 3 * first, rtol=1e-6)
