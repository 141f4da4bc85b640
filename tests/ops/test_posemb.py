"""Sin-cos positions: values by hand, and the published tables."""

import numpy as np
import pytest

from experiments.parity import posemb as verify
from fourm_jax.ops import posemb
from tests import golden_cases


def test_sines_come_first_then_cosines():
    table = posemb.sincos_1d(3, 4)
    expected = [np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02)]
    np.testing.assert_allclose(table[2], expected, atol=1e-6)


def test_the_first_half_is_the_row_and_the_second_the_column_of_row_major_tokens():
    table, line = posemb.sincos_2d(2, 3, 8), posemb.sincos_1d(3, 4)
    np.testing.assert_array_equal(table[4], np.concatenate([line[1], line[1]]))
    np.testing.assert_array_equal(table[2], np.concatenate([line[0], line[2]]))


def test_published_tables_differ_only_where_the_grid_is_not_square():
    np.testing.assert_array_equal(
        posemb.sincos_2d(3, 3, 8), posemb.sincos_2d(3, 3, 8, as_published=True)
    )
    line = posemb.sincos_1d(3, 4)
    quirk = posemb.sincos_2d(2, 3, 8, as_published=True)
    np.testing.assert_array_equal(quirk[5], np.concatenate([line[2], line[1]]))


def test_frequencies_are_rounded_powers_on_every_cpu():
    """At position 1 the angles are the frequencies themselves; arcsin undoes the small ones."""
    found = np.arcsin(posemb.sincos_1d(2, 48)[1, 4:24].astype(np.float64))
    exponents = (np.arange(24, dtype=np.float32) / np.float32(24))[4:]
    expected = [np.float32(1) / np.float32(10000.0 ** float(exponent)) for exponent in exponents]
    np.testing.assert_allclose(found, expected, rtol=1.2e-7)


def test_widths_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="divisible by 4, got 6"):
        posemb.sincos_2d(2, 2, 6)
    with pytest.raises(ValueError, match="even width, got 3"):
        posemb.sincos_1d(2, 3)


@golden_cases.either_set
def test_tables_and_their_bicubic_resizing_equal_the_published_ones(where):
    golden_cases.assert_all_pass(verify.check(where("posemb") / "posemb.safetensors"))
