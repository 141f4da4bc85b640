"""Depth and normal errors by hand."""

import numpy as np
import pytest

from fourm_jax.evals import measure
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


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mae", (1 + 3) / 2), ("mse", (1 + 9) / 2), ("depth_error:metric=rmse", 5**0.5)],
)
def test_pixels_without_a_finite_truth_do_not_count(name, expected):
    truth = np.array([[[1.0, np.nan]], [[3.0, np.inf]], [[np.nan, np.nan]]])
    predicted = np.array([[[2.0, 7.0]], [[6.0, 7.0]], [[7.0, 7.0]]])
    own = measure.load(name)
    assert own.score(predicted, truth) == pytest.approx(expected)
    assert own.total(own.parts(predicted, truth)) == pytest.approx(expected)
    assert np.isnan(own.score(predicted[2:], truth[2:]))


@pytest.mark.parametrize("name", ["mae", "mse"])
def test_the_constants_are_means_of_what_is_finite(name):
    values = np.array([[[1.0, np.nan, np.nan]], [[3.0, np.inf, 5.0]]])
    # the middle pixel has no value anywhere: the mean of all
    assert measure.load(name).constant(values).tolist() == [[2.0, 3.0, 5.0]]


def test_the_constant_pose_is_finite_where_a_joint_is_never_seen():
    poses = np.array([[[0.0, 0, 0], [np.nan] * 3], [[4.0, 2, 0], [np.inf] * 3]])
    assert measure.load("joint_error").constant(poses).tolist() == [[2, 1, 0], [2, 1, 0]]
