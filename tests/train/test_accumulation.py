"""A batch in parts: the same loss, metrics and gradient as the whole batch, to 1e-6."""

import jax
import numpy as np
import pytest

from fourm_jax.train import accumulation, run_config
from tests.train import tiny


def in_parts(config, steps):
    with config.unlocked():
        config.optimizer.accumulate_steps = steps
    return config


def test_a_sum_of_squares_in_two_parts_by_hand():
    def part_loss(weight, part):
        return (weight * part**2).sum(), 10 * part

    def loss(weight, samples):
        return accumulation.loss_of_parts(part_loss, 2, weight, samples)

    samples = np.arange(4.0)
    (value, by_sample), gradient = jax.value_and_grad(loss, has_aux=True)(3.0, samples)
    assert (value, gradient) == (3 * 14, 14)
    np.testing.assert_array_equal(by_sample, [0, 10, 20, 30])
    assert loss(3.0, samples)[0] == 42


@pytest.fixture(scope="module")
def start():
    """Parameters of the trunk, which are the same however it is trained, and a batch."""
    run = run_config.build(tiny.trunk())
    batch = next(run.batches(0))
    params, _ = jax.jit(run.task.init)(jax.random.key(0), batch)
    return params, batch


@pytest.mark.parametrize("loss", ["mod", "token"])
def test_a_batch_in_four_parts_has_the_gradient_of_the_whole(loss, start):
    params, batch = start
    results = []
    for steps in (1, 4):
        task = run_config.make_task(in_parts(tiny.trunk(loss=loss), steps))
        step = jax.jit(jax.value_and_grad(task.loss, has_aux=True), static_argnums=4)
        results.append(step(params, {}, batch, jax.random.key(0), True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


@pytest.mark.parametrize(
    ("make", "message"), [(tiny.trunk, "not divisible"), (tiny.tokenizer, "whole batches")]
)
def test_parts_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        run_config.make_task(in_parts(make(), 3))
