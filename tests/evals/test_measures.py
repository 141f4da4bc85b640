"""Every measure rewards the truth, and the constant it is read against ignores the input."""

import numpy as np
import pytest

from fourm_jax.evals import measures
from fourm_jax.tokenizers.signal import Signal


def test_binary_f1_by_hand():
    truth = np.array([255, 255, 0, 0], np.uint8)
    assert measures.binary_f1(np.array([255, 0, 255, 0], np.uint8), truth) == 0.5
    assert measures.binary_f1(truth, truth) == 1.0


def test_palette_distance_by_hand():
    red, black = np.array([[255, 0, 0]], np.uint8), np.zeros((1, 3), np.uint8)
    assert measures.palette_distance([red], [red]) == 0.0
    assert measures.palette_distance([red], [black]) == 255.0
    assert measures.palette_distance([black[:0]], [black]) == pytest.approx(255 * 3**0.5)


def test_a_metadata_field_that_is_missing_counts_50_bins():
    truth = [{"num_objects": 3, "brightness": 255.0}]
    assert measures.metadata_error(truth, truth) == 0.0
    assert measures.metadata_error([{"num_objects": 3}], truth) == 25.0
    assert measures.metadata_error([{"num_objects": 1, "brightness": 255.0}], truth) == 1.0


def test_the_constant_of_edges_is_the_map_with_the_best_f1():
    (edge,) = measures.MEASURES["edge"]
    maps = np.zeros((4, 2, 2), np.uint8)
    maps[:, 0, 0] = 255
    maps[0, 1, 1] = 255
    np.testing.assert_array_equal(edge.constant(maps), [[255, 0], [0, 0]])


@pytest.mark.parametrize(
    ("signal", "metric", "perfect", "half"),
    [
        (Signal(axes="hw", dtype="uint8", kind="classes", num_classes=2), "miou", 1.0, 1 / 3),
        (Signal(axes="hw", dtype="uint8", kind="binary", low=0, high=1), "f1", 1.0, 0.5),
        (Signal(axes="hw"), "mse", 0.0, 0.5),
    ],
)
def test_a_field_that_no_measure_names_is_judged_by_its_signal(signal, metric, perfect, half):
    (measure,) = measures.of_signal(signal)
    truth = np.array([[[1, 1, 0, 0]]], np.uint8)
    assert measure.metric == metric
    assert measure.score(truth, truth) == perfect
    assert measure.score(np.array([[[1, 0, 1, 0]]], np.uint8), truth) == pytest.approx(half)
    assert measure.constant(truth).tolist() == truth[0].tolist()


def test_digits_judge_captions_as_a_whole():
    (caption,) = measures.of_family("digits")["caption"]
    assert (
        caption.score(["a handwritten one"] * 2, ["a handwritten one", "a handwritten two"]) == 0.5
    )
    assert caption.constant(["b", "a", "b"]) == "b"
    assert measures.of_family("scenes")["caption"] is measures.MEASURES["caption"]


def test_a_constant_prediction_has_the_shape_of_the_truth():
    (depth,) = measures.MEASURES["depth"]
    train = np.array([[[1.0]], [[3.0]]])
    constant = measures.constant_predictions(depth, train, np.zeros((5, 1, 1)))
    assert constant.shape == (5, 1, 1)
    assert depth.score(constant, np.full((5, 1, 1), 2.5)) == 0.5
