"""Tiles of pictures that are larger than the model takes."""

import numpy as np
import pytest

from fourm_jax.ops import tiles


def test_tiles_cover_the_axis_evenly_and_overlap_enough():
    np.testing.assert_array_equal(tiles.starts(8, 8, 2), [0])
    np.testing.assert_array_equal(tiles.starts(14, 8, 2), [0, 6])
    np.testing.assert_array_equal(tiles.starts(15, 8, 2), [0, 4, 7])


def test_what_is_predicted_pixel_by_pixel_does_not_depend_on_the_tiles():
    picture = np.random.default_rng(0).normal(size=(13, 10, 2)).astype(np.float32)
    blended = tiles.predict(picture, (8, 8), 3, lambda cut: cut * 2)
    np.testing.assert_allclose(blended, picture * 2, rtol=1e-5)


def test_neighbours_are_blended_by_the_distance_to_their_borders():
    numbers = np.arange(2.0)  # the first tile says 0 everywhere, the second 1

    def predict(cut):
        return np.broadcast_to(numbers[:, None, None, None], (2, 4, 4, 1))

    blended = tiles.predict(np.zeros((4, 6)), (4, 4), 2, predict)[1, :, 0]
    np.testing.assert_allclose(blended, [0, 0, 0.25, 0.75, 1, 1])


def test_a_picture_smaller_than_a_tile_is_refused():
    with pytest.raises(ValueError, match="tiles of 8 with overlap 2 on 6 pixels"):
        tiles.starts(6, 8, 2)
