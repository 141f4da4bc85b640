"""Mean IoU by hand."""

import numpy as np
import pytest

from fourm_jax.evals import semseg


def test_confusion_has_truth_in_rows_and_prediction_in_columns():
    counts = semseg.confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_mean_iou_averages_classes_that_occur():
    # Class 0: 1 hit, union 2; class 1: 1 hit, union 2; class 2 occurs nowhere.
    counts = semseg.confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 3)
    assert semseg.mean_iou(counts) == 0.5


def test_a_class_that_is_only_predicted_counts_as_zero():
    counts = semseg.confusion(np.array([0, 2]), np.array([0, 0]), 3)
    assert semseg.mean_iou(counts) == pytest.approx((0.5 + 0) / 2)


def test_mean_iou_of_some_classes_ignores_the_others():
    counts = semseg.confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]), 3)
    assert semseg.mean_iou(counts, classes=(1, 2)) == pytest.approx((0.5 + 1) / 2)
    assert np.isnan(semseg.mean_iou(np.zeros((3, 3), int), classes=(1,)))


def test_batches_accumulate_by_addition():
    labels = np.arange(6) % 3
    predicted = np.array([0, 1, 1, 2, 1, 0])
    halves = sum(semseg.confusion(predicted[i : i + 3], labels[i : i + 3], 3) for i in (0, 3))
    assert (halves == semseg.confusion(predicted, labels, 3)).all()


def test_an_impossible_class_is_refused():
    with pytest.raises(ValueError, match=r"predicted class 3, allowed: 0\.\.2"):
        semseg.confusion(np.array([3]), np.array([0]), 3)
    with pytest.raises(ValueError, match="shapes"):
        semseg.confusion(np.zeros((2, 1), int), np.zeros(2, int), 3)


def test_majority_is_taken_per_pixel():
    truth = np.array([[[0, 2]], [[1, 2]], [[1, 0]]])
    assert semseg.per_pixel_majority(truth, 3).tolist() == [[1, 2]]
