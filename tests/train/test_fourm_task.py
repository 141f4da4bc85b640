"""What a trunk's step reports about its tokens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from fourm_jax.models import fourm
from fourm_jax.train import fourm_task, run_config
from tests.train import tiny


def test_valid_tokens_are_counted_by_modality_and_sample(monkeypatch):
    run = run_config.build(tiny.trunk())
    batch, key, task = next(run.batches(0)), jax.random.key(0), run.task
    shapes = jax.eval_shape(task.sample, key, batch)
    drawn = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def first_slots(slots, modality, valid):  # the first slots of two samples hold tokens
        shape = (2, slots.valid.shape[1])
        kinds, seen = np.zeros(shape, np.int32), np.zeros(shape, bool)
        kinds[:, : len(modality)], seen[:, : len(valid[0])] = modality, valid
        cut = jax.tree.map(lambda x: x[:2], slots)
        return dataclasses.replace(cut, modality=jnp.asarray(kinds), valid=jnp.asarray(seen))

    tokens = dataclasses.replace(
        drawn,
        inputs=first_slots(drawn.inputs, [0, 0, 1], [[True, True, True], [True, False, False]]),
        targets=first_slots(drawn.targets, [1, 2, 2], [[True, True, False], [True, True, True]]),
    )
    monkeypatch.setattr(fourm_task.FourMTask, "sample", lambda self, key, batch: tokens)
    monkeypatch.setattr(
        fourm_task.FourMTask,
        "_token_losses",
        lambda self, params, tokens, weights, *rest: fourm.TokenLosses(
            weights.sum(), jnp.ones_like(weights), weights > 0
        ),
    )
    _, aux = task.loss({}, {}, batch, key, True)
    means = {name: sums / np.maximum(counts, 1) for name, (sums, counts) in aux.metrics.items()}
    np.testing.assert_allclose(means["input_tokens/*"][:3], [1.5, 0.5, 0])
    np.testing.assert_allclose(means["target_tokens/*"][:3], [0, 1, 1.5])
    assert (means["input_tokens_per_sample"], means["target_tokens_per_sample"]) == (2, 2.5)
