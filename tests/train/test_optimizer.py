"""Update directions: which parameters decay, what clipping does, every optimizer by name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fourm_jax.models import quantizers
from fourm_jax.train import optimizer

PARAMS = {
    "encoder_embedding": {"tokens": jnp.ones((4, 2)), "contents_rgb": {"kernel": jnp.ones((3, 2))}},
    "modality_embedding": jnp.ones((2, 2)),
    "decoder_embedding": {"mask_token": jnp.ones(2), "positions": {"table": jnp.ones((4, 2))}},
    "encoder": {
        "blocks": {
            "self_norm": {"scale": jnp.ones((3, 2))},
            "self_attention": {
                "qkv": {"kernel": jnp.ones((3, 4, 3, 2, 2))},
                "out": {"kernel": jnp.ones((3, 2, 2, 4))},
            },
            "fc1": {"kernel": jnp.ones((3, 2, 4)), "bias": jnp.ones((3, 4))},
        }
    },
}
ZEROS = jax.tree.map(jnp.zeros_like, PARAMS)


def direction(settings, grads, params=PARAMS):
    transform = optimizer.make(settings)
    return jax.jit(lambda g, p: transform.update(g, transform.init(p), p)[0])(grads, params)


def decayed(params=PARAMS, **settings):
    """Paths whose direction is the parameter itself under a zero gradient and decay 1."""
    settings = optimizer.Settings(lr=1.0, weight_decay=1.0, **settings)
    zeros = jax.tree.map(jnp.zeros_like, params)
    leaves = jax.tree_util.tree_leaves_with_path(direction(settings, zeros, params))
    return {jax.tree_util.keystr(p, simple=True, separator="/") for p, x in leaves if x.any()}


def test_by_default_only_matrices_decay():
    assert decayed() == {
        "encoder_embedding/contents_rgb/kernel",
        "encoder/blocks/self_attention/qkv/kernel",
        "encoder/blocks/self_attention/out/kernel",
        "encoder/blocks/fc1/kernel",
    }


def test_learned_queries_and_scales_of_channels_do_not_decay_and_projections_called_query_do():
    params = {
        "head": {
            "query": jnp.ones((1, 1, 2)),
            "attention": {"query": {"kernel": jnp.ones((2, 1, 2)), "bias": jnp.ones((1, 2))}},
        },
        "block": {"scale": jnp.ones(2), "dropped": jnp.ones(2)},
    }
    assert decayed(params) == {"head/attention/query/kernel"}


def test_the_codes_of_memcodes_are_a_table_and_do_not_decay_and_what_projects_them_does():
    module = quantizers.Memcodes(num_codes=4, latent_dim=6, num_heads=2)
    params = module.init(jax.random.key(0), jnp.ones((1, 6)))["params"]
    assert decayed({"quantizer": params}) == {"quantizer/to_keys", "quantizer/to_values"}


def test_the_published_groups_decay_tables_and_the_mask_token_too():
    names = decayed(no_decay=optimizer.PUBLISHED_NO_DECAY)
    assert "encoder_embedding/tokens" in names
    assert "decoder_embedding/mask_token" in names
    assert not any("norm" in name or name.endswith("bias") for name in names)


def test_a_selector_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match=r"optimizer.no_decay: 'lookup' matches no parameter"):
        optimizer.check_selectors(optimizer.Settings(lr=1.0, no_decay=("lookup",)), PARAMS)


def test_clipping_scales_the_whole_gradient():
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    settings = optimizer.Settings(lr=1.0, name="lion", b1=0.0, weight_decay=0, clip_norm=1.0)
    stages = optimizer.make(settings)
    state = stages.init(params)
    _, state = stages.update({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, state, params)
    moments = jax.tree.leaves(state[1].mu)  # lion keeps (1 - b2) of the clipped gradient
    np.testing.assert_allclose(np.ravel(moments), [0.05 * 0.6, 0.05 * 0.8], rtol=1e-5)


@pytest.mark.parametrize("name", optimizer.NAMES)
def test_every_optimizer_goes_downhill(name):
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    settings = optimizer.Settings(name=name, lr=1.0, weight_decay=0.0)
    for leaf in jax.tree.leaves(direction(settings, grads)):
        assert np.isfinite(leaf).all()
        assert leaf.mean() > 0  # the step subtracts it


def test_muon_treats_every_scanned_layer_and_projection_on_its_own():
    key = jax.random.key(0)
    name = ("encoder", "blocks", "self_attention", "qkv", "kernel")
    noise = jax.random.normal(key, (3, 4, 3, 2, 2))
    grads = {**ZEROS, "encoder": jax.tree.map(jnp.zeros_like, PARAMS["encoder"])}
    grads["encoder"]["blocks"]["self_attention"]["qkv"]["kernel"] = noise
    settings = optimizer.Settings(name="muon", lr=1.0, weight_decay=0.0)
    update = direction(settings, grads)
    for part in name:
        update = update[part]
    matrices = np.einsum("ldchk->lcdhk", update).reshape(9, 4, 4)
    spread = np.linalg.svd(matrices, compute_uv=False)
    assert spread.max() / spread.min() < 2.5  # singular values of noise differ by far more


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "adam"}, "unknown optimizer 'adam'; did you mean 'adamw'"),
        ({"lr": float("nan")}, "optimizer.lr nan is not finite"),
        ({"eps": float("inf")}, "optimizer.eps inf is not finite"),
        ({"clip_norm": -1.0}, "optimizer.clip_norm -1.0 is negative"),
        ({"ema_decay": 1.0}, "optimizer.ema_decay 1.0"),
        ({"timescale": 0.0}, "optimizer.timescale 0.0, must be positive"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        optimizer.Settings(**{"lr": 1.0, **settings})


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_first_moments_may_be_bfloat16(name):
    settings = optimizer.Settings(name=name, lr=1.0, moment_dtype="bfloat16")
    state = optimizer.make(settings).init(PARAMS)
    moments = jax.tree.leaves(optax.tree_utils.tree_get_all_with_path(state, "mu"))
    assert {leaf.dtype for leaf in moments if hasattr(leaf, "dtype")} == {jnp.dtype("bfloat16")}
    with pytest.raises(ValueError, match="float16"):
        optimizer.Settings(lr=1.0, moment_dtype="float16")


def test_a_dtype_of_moments_that_there_are_not_is_refused():
    with pytest.raises(ValueError, match="bfloat16' of adafactor, allowed: 'float32'"):
        optimizer.Settings(name="adafactor", lr=1.0, moment_dtype="bfloat16")
