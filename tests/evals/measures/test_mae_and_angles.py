"""Depth and normal errors by hand."""

import numpy as np
import pytest

from fourm_jax.evals.measures import angular_error, depth_error, mae

DEPTH, ANGLE = mae.make(None, unit="m"), angular_error.make(None)


def test_depth_error_is_the_mean_absolute_difference():
    truth = np.array([[[1.0, 2.0]], [[3.0, 4.0]]], np.float32)
    assert DEPTH.score(truth + np.array([0.5, -1.0]), truth) == pytest.approx(0.75)


def test_the_constant_depth_predictor_is_the_mean_of_every_pixel():
    truth = np.array([[[1.0, 2.0]], [[3.0, 4.0]]], np.float32)
    assert DEPTH.constant(truth).tolist() == [[2.0, 3.0]]


def test_angles_are_in_degrees_and_ignore_length():
    truth = np.array([[0.0, 0, 1], [0, 0, 1], [0, 0, 1]])
    predicted = np.array([[0.0, 0, 5], [0, 2, 0], [0, 1, 1]])
    assert ANGLE.score(predicted, truth) == pytest.approx((0 + 90 + 45) / 3)


def test_a_vector_without_direction_counts_ninety_degrees():
    assert ANGLE.score(np.zeros((1, 3)), np.array([[0.0, 0, 1]])) == 90


def test_the_constant_normal_predictor_has_unit_length():
    truth = np.array([[[[1.0, 0, 0]]], [[[0, 1.0, 0]]]])
    np.testing.assert_allclose(ANGLE.constant(truth), [[[0.5**0.5, 0.5**0.5, 0]]])


def test_pixels_without_a_value_are_no_part_of_the_constants():
    depth = np.array([[[1.0, 0.0]], [[3.0, np.nan]]])
    # the right pixel has no depth anywhere: the mean of all
    assert depth_error.make(None).constant(depth).tolist() == [[2.0, 2.0]]
    normal = np.array([[[[0, 0, 2.0], [np.nan] * 3]], [[[0.0] * 3, [0.0] * 3]]])
    assert ANGLE.constant(normal).tolist() == [[[0, 0, 1], [0, 0, 1]]]
