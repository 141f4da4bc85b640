"""Matching of boxes by hand."""

import numpy as np
import pytest

from fourm_jax.evals.measures import box_f1

LEFT, RIGHT = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]


def detections(*entries):
    return {
        "boxes": np.array([box for box, _ in entries]),
        "classes": [name for _, name in entries],
    }


def test_iou_of_known_boxes():
    quarter = [0.0, 0.0, 0.5, 0.5]
    overlaps = box_f1.iou(np.array([LEFT, RIGHT]), np.array([LEFT, quarter]))
    np.testing.assert_allclose(overlaps, [[1.0, 0.5], [0.0, 0.0]])


def test_a_box_of_no_size_overlaps_nothing():
    point = [0.2, 0.2, 0.2, 0.2]
    assert box_f1.iou(np.array([point]), np.array([LEFT, point])).tolist() == [[0, 0]]


def test_class_and_place_must_agree():
    truth = detections((LEFT, "sphere"), (RIGHT, "box"))
    assert box_f1.num_matches(detections((LEFT, "sphere"), (RIGHT, "cone")), truth) == 1
    assert box_f1.num_matches(detections((RIGHT, "sphere"), (LEFT, "box")), truth) == 0


def test_a_true_box_is_matched_once():
    truth = detections((LEFT, "sphere"))
    twice = detections((LEFT, "sphere"), (LEFT, "sphere"))
    assert box_f1.num_matches(twice, truth) == 1
    assert box_f1.precision_recall([twice], [truth]) == (0.5, 1.0)


def test_precision_and_recall_add_up_over_pictures():
    truth = detections((LEFT, "sphere"), (RIGHT, "box"))
    nothing = {"boxes": np.zeros((0, 4)), "classes": []}
    assert box_f1.precision_recall([nothing, truth], [truth, truth]) == (1.0, 0.5)
    assert box_f1.precision_recall([truth], [nothing]) == (0.0, 0.0)
    with pytest.raises(ValueError, match="1 predictions for 2"):
        box_f1.precision_recall([truth], [truth, truth])


def test_f1_of_a_set_and_the_usual_box_by_hand():
    measure = box_f1.make(None)
    truth = [detections((LEFT, "sphere")), detections((RIGHT, "box"), (LEFT, "sphere"))]
    found = [detections((LEFT, "sphere")), detections((RIGHT, "cone"))]
    # 1 match of 2 predictions and 3 true boxes: precision 1/2, recall 1/3.
    assert measure.score(found, truth) == pytest.approx(0.4)
    assert measure.score(truth, truth) == 1.0
    usual = measure.constant(truth)
    assert (usual["boxes"].tolist(), usual["classes"]) == ([LEFT], ["sphere"])


def test_of_records_without_boxes_the_usual_answer_is_none():
    nothing = {"boxes": np.zeros((0, 4)), "classes": []}
    usual = box_f1.make(None).constant([nothing, nothing])
    assert (usual["boxes"].shape, usual["classes"]) == ((0, 4), [])
