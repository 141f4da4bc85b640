"""What every room shares."""

import jax
import numpy as np

from fourm_jax import contracts


def test_the_position_in_a_sequence_counts_the_visible_tokens_before():
    visible = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 1]], bool)
    found = contracts.dense_positions(visible)
    np.testing.assert_array_equal(found, [[0, 0, 1, 2, 2], [0, 1, 1, 1, 2]])
    assert found.dtype == np.int32


def test_empty_targets_have_rows_and_no_slot():
    for leaf in jax.tree.leaves(contracts.empty_targets(3)):
        assert leaf.shape == (3, 0)
