"""Learning rates by part: frozen rows, factors, decay over the layers."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fourm_jax.models.parts import Rows
from fourm_jax.train import rates

PARAMS = {
    "encoder": {"blocks": {"w": jnp.ones((2, 3))}},
    "encoder_embedding": {"tokens": jnp.ones((3, 2))},
    "head": jnp.ones((2,)),
}
PACKED = {"encoder_embedding/tokens": (Rows("old", 0, 2), Rows("new", 2, 1))}


def test_frozen_rows_get_no_update_and_no_moments():
    found = rates.make(PARAMS, PACKED, freeze="tokens/old|blocks")
    transform = rates.limit(optax.scale_by_adam(), found)
    state = transform.init(PARAMS)
    assert state.mu["encoder_embedding"]["tokens"].shape == (1, 2)
    assert set(state.mu) == {"encoder_embedding", "head"}
    update, _ = transform.update(PARAMS, state, PARAMS)
    np.testing.assert_array_equal(update["encoder"]["blocks"]["w"], 0)
    np.testing.assert_allclose(update["encoder_embedding"]["tokens"][:, 0], [0, 0, 1], rtol=1e-5)


def test_factors_multiply_the_update_of_what_they_name():
    found = rates.make(PARAMS, PACKED, scales={"tokens/old": 0.5, "head": 2.0})
    update, _ = rates.limit(optax.identity(), found).update(PARAMS, optax.EmptyState(), PARAMS)
    np.testing.assert_array_equal(update["encoder_embedding"]["tokens"][:, 0], [0.5, 0.5, 1])
    np.testing.assert_array_equal(update["head"], 2)


def test_rates_decay_from_the_last_block_down_to_the_embeddings():
    found = rates.make(PARAMS, PACKED, layer_decay=0.5)
    update, _ = rates.limit(optax.identity(), found).update(PARAMS, optax.EmptyState(), PARAMS)
    np.testing.assert_array_equal(update["encoder"]["blocks"]["w"][:, 0], [0.25, 0.5])
    np.testing.assert_array_equal(update["encoder_embedding"]["tokens"], 0.125)
    np.testing.assert_array_equal(update["head"], 1)


def test_a_frozen_part_adds_no_gradient():
    found = rates.make(PARAMS, PACKED, freeze="tokens/old|head")
    held = found.without_gradient(PARAMS)
    np.testing.assert_array_equal(held["head"], PARAMS["head"])


def test_what_is_frozen_stays_so_whatever_the_same_regex_says_elsewhere():
    found = rates.make(PARAMS, PACKED, freeze="head", scales={"head": 0.1})
    update, _ = rates.limit(optax.identity(), found).update(PARAMS, optax.EmptyState(), PARAMS)
    np.testing.assert_array_equal(update["head"], 0)


def test_a_pattern_without_a_part_is_refused():
    with pytest.raises(ValueError, match=r"init\.freeze: 'tokns' matches no parameter; there are"):
        rates.make(PARAMS, PACKED, freeze="tokns")
