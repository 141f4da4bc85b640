"""Mean IoU by hand."""

import numpy as np
import pytest

from fourm_jax.evals.measures import miou, pixel_accuracy
from fourm_jax.tokenizers.signal import Signal


def test_confusion_has_truth_in_rows_and_prediction_in_columns():
    counts = miou.confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_mean_iou_averages_classes_that_occur():
    # Class 0: 1 hit, union 2; class 1: 1 hit, union 2; class 2 occurs nowhere.
    counts = miou.confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 3)
    assert miou.mean_iou(counts) == 0.5


def test_a_class_that_is_only_predicted_counts_as_zero():
    counts = miou.confusion(np.array([0, 2]), np.array([0, 0]), 3)
    assert miou.mean_iou(counts) == pytest.approx((0.5 + 0) / 2)


def test_mean_iou_of_some_classes_ignores_the_others():
    counts = miou.confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]), 3)
    assert miou.mean_iou(counts, classes=(1, 2)) == pytest.approx((0.5 + 1) / 2)
    assert np.isnan(miou.mean_iou(np.zeros((3, 3), int), classes=(1,)))


def test_batches_accumulate_by_addition():
    labels = np.arange(6) % 3
    predicted = np.array([0, 1, 1, 2, 1, 0])
    halves = sum(miou.confusion(predicted[i : i + 3], labels[i : i + 3], 3) for i in (0, 3))
    assert (halves == miou.confusion(predicted, labels, 3)).all()


def test_an_impossible_class_is_refused():
    with pytest.raises(ValueError, match=r"predicted class 3, allowed: 0\.\.2"):
        miou.confusion(np.array([3]), np.array([0]), 3)
    with pytest.raises(ValueError, match="shapes"):
        miou.confusion(np.zeros((2, 1), int), np.zeros(2, int), 3)


def test_majority_is_taken_per_pixel():
    truth = np.array([[[0, 2]], [[1, 2]], [[1, 0]]])
    assert miou.per_pixel_majority(truth, 3).tolist() == [[1, 2]]


def test_a_class_that_is_ignored_is_no_part_of_the_mean_and_no_usual_class():
    """Class 0 is "no label": it is predicted once, and the most frequent one everywhere."""
    truth = np.array([[[0, 0, 0]], [[0, 2, 0]], [[1, 2, 0]]])
    counted = miou.MeanIoU(num_classes=3, ignored=0)
    predicted = np.array([[[2, 2, 2]], [[2, 2, 2]], [[1, 0, 2]]])
    assert counted.score(predicted, truth) == pytest.approx((1 + 1 / 2) / 2)
    per_class = counted.per_class(predicted, truth)
    assert np.isnan(per_class[0])
    assert per_class[1:].tolist() == [1, 1 / 2]
    assert counted.constant(truth).tolist() == [[1, 2, 2]]  # the last has the usual class of all
    accuracy = pixel_accuracy.PixelAccuracy(num_classes=3, ignored=0)
    assert accuracy.score(accuracy.constant(truth), truth) == 1


def test_classes_before_the_first_one_do_not_count():
    signal = Signal(axes="hw", dtype="uint8", kind="classes", num_classes=3)
    truth, predicted = np.array([[[0, 0, 1, 2]]]), np.array([[[0, 1, 1, 2]]])
    assert miou.make(signal).score(predicted, truth) == pytest.approx((0.5 + 0.5 + 1) / 3)
    objects = miou.make(signal, metric="objects_miou", first_class=1)
    assert objects.metric == "objects_miou"
    assert objects.score(predicted, truth) == pytest.approx((0.5 + 1) / 2)
    with pytest.raises(ValueError, match="class maps"):
        miou.make(Signal(axes="hw"))
