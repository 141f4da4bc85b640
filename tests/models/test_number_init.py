"""Numbers in texts begin near to their neighbours, all other rows as they would without."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import PUBLISHED
from fourm_jax.models import number_init, tables

DIM, STD = 64, 0.5
GRID = ModalitySpec(name="tok_depth", kind="grid", vocab_size=7, grid=(2, 2))
TEXTS = tuple(
    ModalitySpec(name=name, kind="sequence", vocab_size=4_300, max_tokens=6, table="text")
    for name in ("caption", "det")
)
FIRST = GRID.vocab_size + PUBLISHED.first_coordinate_id


@pytest.fixture(scope="module")
def rows():
    specs = (GRID, *TEXTS)
    layout = tables.token_layout(specs, [spec.name for spec in specs])
    init = number_init.smooth(specs, layout, STD)
    return np.asarray(init(jax.random.key(0), (layout.num_rows, DIM)))


def likeness(rows: np.ndarray, distance: int) -> float:
    """Mean product of two rows of the first axis that are so far apart, of those of one row."""
    axis = rows[FIRST : FIRST + PUBLISHED.num_bins]
    return float(np.mean(axis[distance:] * axis[: len(axis) - distance]) / STD**2)


def test_neighbours_are_alike_and_distant_numbers_are_not(rows):
    assert likeness(rows, 0) == pytest.approx(1.0, abs=0.1)
    assert likeness(rows, 1) == pytest.approx(number_init.SHARED**2, abs=0.08)
    assert likeness(rows, 40) == pytest.approx(number_init.SHARED**2 * np.exp(-0.5), abs=0.12)
    assert abs(likeness(rows, 200)) < 0.12


def test_two_axes_have_nothing_in_common(rows):
    axes = rows[FIRST : FIRST + 2 * PUBLISHED.num_bins].reshape(2, PUBLISHED.num_bins, DIM)
    assert abs(np.mean(axes[0] * axes[1])) < 0.1 * STD**2


def test_rows_that_are_no_numbers_are_drawn_as_ever(rows):
    plain = np.asarray(nn.initializers.normal(STD)(jax.random.key(0), rows.shape))
    numbers = np.arange(FIRST, FIRST + 4 * PUBLISHED.num_bins)
    np.testing.assert_array_equal(
        np.delete(rows, numbers, axis=0), np.delete(plain, numbers, axis=0)
    )
    assert (rows[numbers] != plain[numbers]).any(axis=1).all()


def test_a_text_without_numbers_is_left_alone():
    specs = (ModalitySpec(name="caption", kind="sequence", vocab_size=11, max_tokens=6),)
    init = number_init.smooth(specs, tables.token_layout(specs, ["caption"]), STD)
    plain = nn.initializers.normal(STD)(jax.random.key(0), (11, DIM))
    np.testing.assert_array_equal(init(jax.random.key(0), (11, DIM)), plain)
