"""Weights of modalities in the loss of the trunk."""

import jax
import jax.numpy as jnp
import pytest

from fourm_jax.models import fourm
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


def test_the_z_loss_is_part_of_the_loss_of_training_alone(monkeypatch):
    config = tiny.trunk().unlock()
    config.z_loss = 0.5
    one, given = run_config.make_task(config.lock()), []

    def token_losses(variables, tokens, train, weights, z_loss, **options):
        given.append((train, z_loss))
        return fourm.TokenLosses(weights.sum(), weights, weights > 0)

    monkeypatch.setattr(fourm.FourM, "apply", lambda self, *args, **kw: token_losses(*args, **kw))
    batch = next(run_config.build(config).batches(0))
    for train in (True, False):
        jax.eval_shape(
            lambda key, train=train: one.loss({}, {}, batch, key, train)[0], jax.random.key(0)
        )
    assert given == [(True, 0.5), (False, 0.0)]


def test_a_negative_z_loss_is_refused():
    config = tiny.trunk().unlock()
    config.z_loss = -1.0
    with pytest.raises(ValueError, match=r"z_loss -1.0, must be at least 0"):
        run_config.make_task(config.lock())
