"""Normalization of token losses, worked out by hand."""

import jax.numpy as jnp
import numpy as np

from fourm_jax.ops import losses

# modality 0: losses 1 and 3; modality 1: loss 8; modality 2: nothing; one slot is padding
LOSS = jnp.array([[1.0, 3.0], [8.0, jnp.nan]])
MODALITY = jnp.array([[0, 0], [1, 1]])
VALID = jnp.array([[True, True], [True, False]])


def test_sums_and_counts_leave_padding_out():
    sums, counts = losses.modality_losses(LOSS, MODALITY, VALID, 3)
    np.testing.assert_array_equal(sums, [4, 8, 0])
    np.testing.assert_array_equal(counts, [2, 1, 0])


def test_mod_loss_averages_over_the_modalities_that_occur():
    assert losses.mod_loss(LOSS, MODALITY, VALID, 3) == (2 + 8) / 2


def test_published_mod_loss_counts_absent_modalities():
    value = losses.mod_loss(LOSS, MODALITY, VALID, 3, divisor=3)
    np.testing.assert_allclose(value, (2 + 8) / 3, rtol=1e-6)


def test_token_loss_averages_over_tokens():
    assert losses.token_loss(LOSS, MODALITY, VALID, 3) == 4


def test_published_token_loss_weighs_tokens_by_their_vocabulary():
    value = losses.token_loss(LOSS, MODALITY, VALID, 3, weights=(10, 5, 7))
    np.testing.assert_allclose(value, (4 * 10 + 8 * 5) / (2 * 10 + 5), rtol=1e-6)


def test_a_batch_without_any_target_has_loss_zero():
    nothing = VALID & False
    assert losses.mod_loss(LOSS, MODALITY, nothing, 3) == 0
    assert losses.token_loss(LOSS, MODALITY, nothing, 3) == 0
