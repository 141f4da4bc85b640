"""The patched UNet and the parts it shares with the UViT: sizes, borders, conditions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.models.backbones import unet, unet_parts
from tests import drawn

TINY = unet.UNet(
    num_channels=1,
    dim=8,
    multipliers=(1, 2),
    blocks_per_level=1,
    attention_at=(2,),
    patch_size=2,
    num_groups=4,
)


def inputs(size=(8, 12), batch=2):
    keys = jax.random.split(jax.random.key(0), 2)
    noised = jax.random.normal(keys[0], (batch, *size, 1))
    return noised, jnp.arange(batch) * 500, jax.random.normal(keys[1], (batch, 2, 3, 4))


@pytest.fixture(scope="module")
def tiny():
    """Compiled forward pass and parameters without zeros, so that every path matters."""
    shapes = jax.eval_shape(TINY.init, jax.random.key(1), *inputs())
    return jax.jit(TINY.apply), drawn.variables(shapes, 0.2)


def test_the_published_decoder_has_its_number_of_parameters():
    shapes = jax.eval_shape(
        unet.UNet(num_channels=3).init,
        jax.random.key(0),
        jnp.zeros((1, 224, 224, 3)),
        jnp.zeros(1, jnp.int32),
        jnp.zeros((1, 14, 14, 32)),
    )
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert round(count / 1e6, 2) == 196.35


def test_it_starts_by_answering_zero():
    params = jax.jit(TINY.init)(jax.random.key(1), *inputs())
    np.testing.assert_array_equal(jax.jit(TINY.apply)(params, *inputs()), 0)


def test_the_answer_has_the_shape_of_the_image_at_any_size(tiny):
    apply, params = tiny
    for size in ((8, 12), (16, 4)):
        assert apply(params, *inputs(size)).shape == (2, *size, 1)


def test_dropping_a_condition_is_a_condition_of_zeros(tiny):
    apply, params = tiny
    noised, times, condition = inputs()
    mask = jnp.ones((2, 2, 3), bool).at[1, 0, 2].set(False)
    dropped = apply(params, noised, times, condition, mask)
    zeroed = apply(params, noised, times, condition.at[1, 0, 2].set(0), jnp.ones_like(mask))
    np.testing.assert_allclose(dropped, zeroed, atol=1e-5)
    whole = apply(params, noised, times, condition)
    np.testing.assert_allclose(dropped[0], whole[0], atol=1e-5)
    assert jnp.abs(dropped[1] - whole[1]).max() > 1e-3


def test_the_answer_depends_on_the_time(tiny):
    apply, params = tiny
    noised, times, condition = inputs()
    change = apply(params, noised, times + 100, condition) - apply(params, *inputs())
    assert jnp.abs(change).max() > 1e-3


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="image 8 x 10, allowed: sides divisible by 4"):
        TINY.init(jax.random.key(0), *inputs((8, 10)))


def test_time_features_are_cosines_then_sines():
    features = unet_parts.time_features(jnp.array([3]), 4)
    expected = [np.cos(3), np.cos(0.03), np.sin(3), np.sin(0.03)]
    np.testing.assert_allclose(features[0], expected, atol=1e-6)


def test_nearest_resizing_repeats_and_skips():
    row = jnp.arange(3)[None, None, :]
    assert unet_parts.resize_nearest(row, (1, 6)).tolist() == [[[0, 0, 1, 1, 2, 2]]]
    assert unet_parts.resize_nearest(row, (1, 2)).tolist() == [[[0, 1]]]
