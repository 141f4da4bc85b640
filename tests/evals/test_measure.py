"""Measures are found by name, follow from the spec or the signal, and reward the truth."""

import numpy as np
import pytest

from fourm_jax.evals import measure
from fourm_jax.modalities import classes, registry
from fourm_jax.tokenizers.signal import Signal

EDGES = Signal(axes="hw", dtype="uint8", kind="binary", low=0.0, high=255.0)
SCENES = {spec.name: spec for spec in registry.SCENES}


def test_binary_f1_by_hand():
    f1 = measure.load("f1", EDGES)
    truth = np.array([255, 255, 0, 0], np.uint8)
    assert f1.score(np.array([255, 0, 255, 0], np.uint8), truth) == 0.5
    assert f1.score(truth, truth) == 1.0


def test_palette_distance_by_hand():
    distance = measure.load("palette_distance")
    red, black = np.array([[255, 0, 0]], np.uint8), np.zeros((1, 3), np.uint8)
    assert distance.score([red], [red]) == 0.0
    assert distance.score([red], [black]) == 255.0
    assert distance.score([black[:0]], [black]) == pytest.approx(255 * 3**0.5)


def test_a_metadata_field_that_is_missing_counts_50_bins():
    error = measure.load("metadata_error")
    truth = [{"num_objects": 3, "brightness": 255.0}]
    assert error.score(truth, truth) == 0.0
    assert error.score([{"num_objects": 3}], truth) == 25.0
    assert error.score([{"num_objects": 1, "brightness": 255.0}], truth) == 1.0
    assert error.constant([*truth, {"num_objects": 1}]) == {"num_objects": 2.0, "brightness": 255.0}


def test_the_constant_of_edges_is_the_map_with_the_best_f1():
    maps = np.zeros((4, 2, 2), np.uint8)
    maps[:, 0, 0] = 255
    maps[0, 1, 1] = 255
    np.testing.assert_array_equal(measure.load("f1", EDGES).constant(maps), [[255, 0], [0, 0]])


def test_psnr_follows_from_the_squared_error_and_bytes_do_not_wrap_around():
    psnr = measure.load("psnr")
    truth = np.full((1, 2, 2, 3), 20, np.uint8)
    for wrong in (truth + 10, truth - 10):
        assert psnr.score(wrong, truth) == pytest.approx(10 * np.log10(255**2 / 100))
    assert np.isfinite(psnr.score(truth, truth))


@pytest.mark.parametrize(
    ("signal", "metric", "perfect", "half"),
    [
        (Signal(axes="hw", dtype="uint8", kind="classes", num_classes=2), "miou", 1.0, 1 / 3),
        (Signal(axes="hw", dtype="uint8", kind="binary", low=0, high=1), "f1", 1.0, 0.5),
        (Signal(axes="hw"), "mse", 0.0, 0.5),
    ],
)
def test_a_modality_that_names_no_measure_is_judged_by_its_signal(signal, metric, perfect, half):
    spec = SCENES["tok_feature"].replace(source="heat")
    (own,) = measure.of(spec, signal)
    truth = np.array([[[1, 1, 0, 0]]], np.uint8)
    assert own.metric == metric
    assert own.score(truth, truth) == perfect
    assert own.score(np.array([[[1, 0, 1, 0]]], np.uint8), truth) == pytest.approx(half)
    assert own.constant(truth).tolist() == truth[0].tolist()


def test_coco_labels_are_judged_as_well_as_the_labels_of_scenes():
    (coco,) = [spec for spec in registry.FOURM if spec.name == "tok_semseg@224"]
    assert len(coco.classes) == 134 and coco.classes[0] == "void"
    assert SCENES["tok_semseg"].classes == classes.SCENES
    signal = Signal(axes="hw", dtype="uint8", kind="classes", num_classes=len(coco.classes))
    (own,) = measure.of(coco, signal)
    truth = np.array([[[0, 133], [80, 80]]])
    assert own.score(truth, truth) == 1.0
    assert own.score(np.array([[[0, 133], [80, 133]]]), truth) == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_captions_are_judged_as_their_data_set_says():
    assert [m.metric for m in measure.of(SCENES["caption"])] == [
        "colour_shape_accuracy",
        "all_pairs_accuracy",
    ]
    (digits,) = measure.of(next(s for s in registry.DIGITS if s.name == "caption"))
    assert digits.metric == "exact_match"
    assert digits.score(["a one"] * 2, ["a one", "a two"]) == 0.5
    assert digits.constant(["b", "a", "b"]) == "b"


def test_an_unknown_measure_or_option_names_the_nearest():
    with pytest.raises(ValueError, match="measure 'miuo'; did you mean 'miou'"):
        measure.load("miuo")
    with pytest.raises(ValueError, match="argument 'units'; did you mean 'unit'"):
        measure.load("mae:units=m")
    with pytest.raises(ValueError, match="'ANY_PAIRS'; did you mean 'ANY_PAIR'"):
        measure.load("scenes.caption_scores:ANY_PAIRS")
    with pytest.raises(ValueError, match=r"no module 'scenes\.captions'"):
        measure.load("scenes.captions:ANY_PAIR")


def test_every_measure_that_a_modality_names_exists():
    signals = {"miou": Signal(axes="hw", kind="classes", num_classes=6), "f1": EDGES}
    for family in registry.FAMILIES.values():
        for spec in family:
            for name in spec.measure:
                assert measure.load(name, signals.get(name.split(":")[0])).metric


def test_a_constant_prediction_has_the_shape_of_the_truth():
    mae = measure.load("mae")
    train = np.array([[[1.0]], [[3.0]]])
    constant = measure.constant_predictions(mae, train, np.zeros((5, 1, 1)))
    assert constant.shape == (5, 1, 1)
    assert mae.score(constant, np.full((5, 1, 1), 2.5)) == 0.5


def test_an_entry_has_the_headline_and_the_others_beside_it():
    truth = np.array([[[0.0, 2.0]], [[0.0, 4.0]]])
    entry = measure.judge(
        (measure.load("mae:unit=m"), measure.load("mse")), truth + 1, truth, truth, train=truth
    )
    assert entry["metric"] == "mae" and entry["unit"] == "m" and entry["n"] == 2
    assert (entry["model"], entry["tokenizer_bound"], entry["constant"]) == (1.0, 0.0, 0.5)
    assert [other["metric"] for other in entry["also"]] == ["mse"]
