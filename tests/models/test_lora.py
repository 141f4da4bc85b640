"""Low-rank adapters: nothing changes at the start, and merging is W x + scale · B A x."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.models import lora

PARAMS = {
    "encoder": {
        "blocks": {
            "self_attention": {
                "qkv": {"kernel": jnp.ones((2, 8, 3, 2, 4))},
                "out": {"kernel": jnp.ones((2, 2, 4, 8))},
            },
            "feed_forward": {"fc1": {"kernel": jnp.ones((2, 8, 6))}},
            "mlp_norm": {"scale": jnp.ones((2, 8))},
        }
    }
}


def test_the_bottleneck_of_packed_projections_is_as_many_times_wider():
    adapters = lora.init(jax.random.key(0), PARAMS, rank=4)
    shapes = {path.split("/")[-2]: (a["a"].shape, a["b"].shape) for path, a in adapters.items()}
    assert shapes == {
        "qkv": ((2, 8, 12), (2, 12, 24)),
        "out": ((2, 8, 4), (2, 4, 8)),
        "fc1": ((2, 8, 4), (2, 4, 6)),
    }


def test_fresh_adapters_change_nothing():
    merged = lora.merge(PARAMS, lora.init(jax.random.key(0), PARAMS))
    jax.tree.map(np.testing.assert_array_equal, merged, PARAMS)


def test_merging_adds_the_scaled_product_to_the_chosen_kernels_only():
    adapters = lora.init(jax.random.key(0), PARAMS, pattern=lora.ATTENTION, rank=2)
    path = "encoder/blocks/self_attention/qkv/kernel"
    adapters[path]["b"] = jnp.ones((2, 6, 24))
    blocks = lora.merge(PARAMS, adapters, scale=0.5)["encoder"]["blocks"]
    x = jnp.arange(8.0)
    kernel = blocks["self_attention"]["qkv"]["kernel"][1].reshape(8, 24)
    expected = x @ jnp.ones((8, 24)) + 0.5 * (x @ adapters[path]["a"][1]) @ jnp.ones((6, 24))
    np.testing.assert_allclose(x @ kernel, expected, rtol=1e-5)
    np.testing.assert_array_equal(blocks["feed_forward"]["fc1"]["kernel"], 1)


def test_adapters_start_with_standard_deviation_one_over_rank():
    wide = {"encoder": {"blocks": {"feed_forward": {"fc1": {"kernel": jnp.ones((1, 4000, 6))}}}}}
    (adapter,) = lora.init(jax.random.key(0), wide, pattern=lora.MLP, rank=4).values()
    assert abs(float(adapter["a"].std()) - 0.25) < 0.01


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match="no parameter matches the LoRA pattern 'typo'"):
        lora.init(jax.random.key(0), PARAMS, pattern="typo")
