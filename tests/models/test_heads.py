"""Prediction heads: found by name, one shape of answer each, blind to what does not exist."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import heads
from fourm_jax.models.heads import base
from fourm_jax.models.heads.base import Features
from fourm_jax.train import transfer_task
from fourm_jax.utils import modules

SHAPES = {
    "linear": (2, 3),
    "attentive_pool": (2, 3),
    "regression": (2, 3),
    "dense_linear": (2, 8, 8, 3),
    "dense_convnext": (2, 8, 8, 3),
    "dense_pyramid": (2, 8, 8, 3),
}
OPTIONS = {"dense_pyramid": {"depths": (1, 2, 4), "dim": 4}}


def features(seed=0):
    tokens = jax.random.normal(jax.random.key(seed), (2, 6, 8))
    valid = jnp.arange(6) < jnp.array([[6], [5]])
    grid = tokens[:, :4].reshape(2, 2, 2, 8)
    return Features(tokens, valid, grid, (grid, 2 * grid, 3 * grid))


def applied(name, given):
    head = transfer_task.make_head(name, 3, (8, 8), **OPTIONS.get(name, {}))
    params = head.init(jax.random.key(0), given)
    noisy = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(1), x.shape), params)
    return head.apply(noisy, given)


def test_every_head_is_covered():
    assert set(SHAPES) == set(modules.offering(heads, "make"))


@pytest.mark.parametrize("name", SHAPES)
def test_a_head_answers_in_its_shape(name):
    assert applied(name, features()).shape == SHAPES[name]


@pytest.mark.parametrize("name", ["linear", "attentive_pool", "regression"])
def test_tokens_that_do_not_exist_change_no_answer(name):
    given = features()
    changed = given.replace(tokens=given.tokens.at[1, 5].set(100.0))
    np.testing.assert_allclose(applied(name, given), applied(name, changed), atol=1e-5)


def test_the_average_counts_what_exists():
    tokens = jnp.array([[[1.0], [3.0], [50.0]]])
    given = Features(tokens, jnp.array([[True, True, False]]), tokens[:, :1, None])
    assert given.mean() == 2.0


RGB = ModalitySpec(name="rgb", kind="pixels", grid=(1, 2), patch_size=2, num_channels=3)
DEPTH = ModalitySpec(name="tok_depth", kind="grid", grid=(1, 2), vocab_size=5)


@pytest.mark.parametrize(
    ("merge", "first_row", "second_row"),  # the second sample has no depth
    [
        ("none", [[1.0], [2.0]], [[5.0], [6.0]]),
        ("mean", [[2.0], [3.0]], [[5.0], [6.0]]),
        ("max", [[3.0], [4.0]], [[5.0], [6.0]]),
        ("concat", [[1.0, 3.0], [2.0, 4.0]], [[5.0, 0.0], [6.0, 0.0]]),
    ],
)
def test_inputs_on_one_grid_are_merged_where_they_exist(merge, first_row, second_row):
    tokens = jnp.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 70.0, 80.0]])[..., None]
    valid = jnp.array([[True] * 4, [True, True, False, False]])
    merged = base.merge_grids(tokens, valid, (RGB, DEPTH), merge)
    np.testing.assert_array_equal(merged[:, 0], [first_row, second_row])


def test_the_levels_of_a_pyramid_are_all_read():
    given = features()
    before = applied("dense_pyramid", given)
    for number in range(3):
        levels = [*given.levels]
        levels[number] = jnp.flip(levels[number], -1)
        changed = given.replace(levels=tuple(levels))
        assert not np.allclose(applied("dense_pyramid", changed), before)


@pytest.mark.parametrize("depths", [(1,), (2, 1), (0, 1)])
def test_depths_of_a_pyramid_must_rise(depths):
    with pytest.raises(ValueError, match=r"depths .*, expected rising ones, as \(1, 3\)"):
        transfer_task.make_head("dense_pyramid", 3, (8, 8), depths=depths)


def test_label_maps_that_do_not_divide_over_the_tokens_are_refused():
    head = transfer_task.make_head("dense_linear", 3, (9, 8))
    with pytest.raises(ValueError, match=r"labels of \(9, 8\) pixels on a grid of 2 x 2 tokens"):
        head.init(jax.random.key(0), features())


def test_an_unknown_head_or_option_is_refused():
    with pytest.raises(ValueError, match="head 'liner'; did you mean 'linear'"):
        transfer_task.make_head("liner", 3, (8, 8))
    with pytest.raises(ValueError, match=r"head 'linear': .*num_heads"):
        transfer_task.make_head("linear", 3, (8, 8), num_heads=2)
