"""Weights of modalities in the loss of the trunk."""

import jax.numpy as jnp
import pytest

from fourm_jax.train import run_config
from tests.train import tiny


def task(loss, **weights):
    config = tiny.trunk(loss=loss).unlock()
    config.loss_weights = weights
    return run_config.make_task(config.lock())


@pytest.mark.parametrize(("loss", "expected"), [("mod", (1 + 6) / 2), ("token", (1 + 1 + 6) / 3)])
def test_tokens_of_a_modality_count_as_its_weight_says(loss, expected):
    depth, caption = 1, 2  # places of tok_depth and caption among the modalities
    modality = jnp.array([[depth, depth, caption]])
    valid = jnp.ones((1, 3), bool)
    value = task(loss, caption=3.0)._mean_loss(jnp.array([[1.0, 1.0, 2.0]]), modality, valid, 3)
    assert float(value) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"captoin": 1.0}, "unknown modality in loss_weights 'captoin'; did you mean 'caption'"),
        ({"rgb": 1.0}, "unknown modality in loss_weights 'rgb'"),  # an input alone
        ({"caption": -1.0}, r"loss_weights.caption -1.0, must be at least 0"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        task("mod", **weights)
