"""What every room shares."""

import jax
import numpy as np
import pytest

from fourm_jax import contracts
from fourm_jax.data.sources import fake
from fourm_jax.modalities.spec import ModalitySpec

SPECS = {
    "pixels": ModalitySpec(name="pixels", kind="pixels", grid=(1, 2), patch_size=4, num_channels=3),
    "grid": ModalitySpec(name="grid", kind="grid", vocab_size=9, grid=(1, 2)),
    "global": ModalitySpec(name="global", kind="global", vocab_size=9, max_tokens=2),
    "sequence": ModalitySpec(name="sequence", kind="sequence", vocab_size=5000, max_tokens=6),
    "embedding": ModalitySpec(name="embedding", kind="embedding", max_tokens=3, embedding_dim=5),
}
ENTRIES = {
    "pixels": contracts.PixelsEntry,
    "grid": contracts.GridEntry,
    "global": contracts.GridEntry,
    "sequence": contracts.SequenceEntry,
    "embedding": contracts.EmbeddingEntry,
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_a_batch_holds_the_arrays_that_are_declared_for_the_kind(kind):
    batch = fake.batch([SPECS[kind]], batch_size=2)
    assert set(batch) == {kind, "mixture"}
    assert set(batch[kind]) == set(ENTRIES[kind].__annotations__)
    assert all(len(array) == 2 for array in jax.tree.leaves(batch))


def test_the_position_in_a_sequence_counts_the_visible_tokens_before():
    visible = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 1]], bool)
    found = contracts.dense_positions(visible)
    np.testing.assert_array_equal(found, [[0, 0, 1, 2, 2], [0, 1, 1, 1, 2]])
    assert found.dtype == np.int32


def test_empty_targets_have_rows_and_no_slot():
    for leaf in jax.tree.leaves(contracts.empty_targets(3)):
        assert leaf.shape == (3, 0)
