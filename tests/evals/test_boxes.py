"""Matching of boxes by hand."""

import numpy as np
import pytest

from fourm_jax.evals import boxes

LEFT, RIGHT = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]


def detections(*entries):
    return {
        "boxes": np.array([box for box, _ in entries]),
        "classes": [name for _, name in entries],
    }


def test_iou_of_known_boxes():
    quarter = [0.0, 0.0, 0.5, 0.5]
    np.testing.assert_allclose(boxes.iou([LEFT, RIGHT], [LEFT, quarter]), [[1.0, 0.5], [0.0, 0.0]])


def test_a_box_of_no_size_overlaps_nothing():
    assert boxes.iou([[0.2, 0.2, 0.2, 0.2]], [LEFT, [0.2, 0.2, 0.2, 0.2]]).tolist() == [[0, 0]]


def test_class_and_place_must_agree():
    truth = detections((LEFT, "sphere"), (RIGHT, "box"))
    assert boxes.num_matches(detections((LEFT, "sphere"), (RIGHT, "cone")), truth) == 1
    assert boxes.num_matches(detections((RIGHT, "sphere"), (LEFT, "box")), truth) == 0


def test_a_true_box_is_matched_once():
    truth = detections((LEFT, "sphere"))
    twice = detections((LEFT, "sphere"), (LEFT, "sphere"))
    assert boxes.num_matches(twice, truth) == 1
    assert boxes.precision_recall([twice], [truth]) == (0.5, 1.0)


def test_precision_and_recall_add_up_over_pictures():
    truth = detections((LEFT, "sphere"), (RIGHT, "box"))
    nothing = {"boxes": np.zeros((0, 4)), "classes": []}
    assert boxes.precision_recall([nothing, truth], [truth, truth]) == (1.0, 0.5)
    assert boxes.precision_recall([truth], [nothing]) == (0.0, 0.0)
    with pytest.raises(ValueError, match="1 predictions for 2"):
        boxes.precision_recall([truth], [truth, truth])
