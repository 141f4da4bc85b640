"""The UViT: published sizes, variants, what dropped conditions and long skips do."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.convert import divae_config
from fourm_jax.models import uvit
from tests import drawn

SMALL = {
    "num_channels": 1, "patch_size": 2, "channels": (8, 8), "blocks_per_level": 1, "dim": 16,
    "num_heads": 2, "num_groups": 4, "grid": 4, "depth": 3,
}  # fmt: skip
MILLIONS = {
    "uvit_b_p4_f16": 126.75, "uvit_l_p4_f16": 391.42, "uvit_h_p4_f16": 769.36,
    "uvit_b_p4_f8": 125.57, "uvit_b_p4_f16_longskip": 143.29, "uvit_b_p4_f16_extraconv": 160.79,
}  # fmt: skip
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
        module.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)), jnp.zeros(1),
        jnp.zeros((1, 14, 14, 32)),
    )  # fmt: skip
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
