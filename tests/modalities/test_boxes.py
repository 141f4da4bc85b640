"""Boxes: the published serialization, geometry, and reading generated text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourm_jax.modalities import boxes, coordinates
from tests.modalities import cases

ORDERS = {"dist_to_orig": "distance", "area": "area", "score": "score"}


def test_text_equals_that_of_the_published_system():
    # Some recorded calls drop boxes that are hardly visible, which no published training does.
    usual = [case for case in cases.golden("det") if not case["min_visibility"]]
    assert len(usual) == 21
    for case in usual:
        value = boxes.Boxes.from_instances(case["instances"]).filtered()
        value = value.cropped(case["crop_coords"], case["orig_size"])
        value = value.flipped() if case["flip"] else value
        if case["det_max_instances"] is not None:
            value = value.strongest(case["det_max_instances"])
        value = value.ordered(ORDERS[case["bbox_order"]])
        assert value.to_text() == case["string"]
        for row, (*box, name, score) in enumerate(case["boxes_after"]):
            np.testing.assert_allclose(value.boxes[row], box, atol=1e-9)
            assert (value.classes[row], value.scores[row]) == (name, score)


def test_a_box_is_four_bins_and_a_name():
    value = boxes.Boxes([[0.0, 0.25, 0.5, 1.0]], ["stop sign"])
    assert value.to_text() == "v0=0 v1=250 v2=500 v3=999 stop sign"
    assert boxes.Boxes(np.zeros((0, 4)), []).to_text() == ""


def test_serialising_a_record_sorts_by_distance_and_drops_low_scores():
    record = {
        "boxes": np.array([[0.5, 0.5, 1, 1], [0, 0, 1, 1], [0.1, 0.1, 1, 1]], np.float32),
        "classes": ["cube", "cone", "sphere"],
        "scores": [0.6, 0.7, 0.5],
    }
    assert [chunk.split()[-1] for chunk in boxes.serialize(record)] == ["cone", "cube"]
    del record["scores"]
    names = [chunk.split()[-1] for chunk in boxes.serialize(record)]
    assert names == ["cone", "sphere", "cube"]


def test_cropping_moves_clips_and_drops():
    value = boxes.Boxes([[0.0, 0.0, 0.5, 0.5], [0.75, 0.75, 1.0, 1.0]], ["cube", "cone"])
    cropped = value.cropped((0, 25, 50, 50), size=(100, 100))  # columns 25..75, rows 0..50
    assert cropped.classes == ("cube",)
    np.testing.assert_allclose(cropped.boxes, [[0.0, 0.0, 0.5, 1.0]])


def test_flipping_twice_changes_nothing():
    value = boxes.Boxes([[0.1, 0.2, 0.3, 0.4]], ["cube"])
    np.testing.assert_allclose(value.flipped().boxes, [[0.7, 0.2, 0.9, 0.4]])
    np.testing.assert_allclose(value.flipped().flipped().boxes, value.boxes)


def test_reading_keeps_valid_boxes_and_says_what_it_dropped():
    parsed = boxes.parse(
        "so v0=1 v1=2 v2=3 v3=4 potted plant v0=9 v1=2 v2=3 v3=4 dog v0=1 v1=2 v3=4 cat "
        "v0=5 v1=6 v2=7 v3=8 horse v0=1 [EOS] v0=1 v1=1 v2=2 v3=2 cow"
    )
    assert parsed.value.classes == ("potted plant", "horse")
    assert parsed.value.bins().tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert [(drop.text, drop.reason.split()[0]) for drop in parsed.dropped] == [
        ("so", "a"),
        ("v0=9 v1=2 v2=3 v3=4 dog", "box"),
        ("v0=1 v1=2 v3=4 cat", "a"),
        ("v0=1", "a"),
    ]


def test_reading_with_known_classes_drops_others():
    parsed = boxes.Boxes.from_text("v0=1 v1=2 v2=3 v3=4 dog", classes={"cat"})
    assert parsed.value.classes == ()
    assert parsed.dropped[0].reason == "unknown class name 'dog'"


def test_a_box_without_name_is_dropped():
    assert boxes.parse("v0=1 v1=2 v2=3 v3=4").dropped[0].reason == "box without class name"


@given(
    st.lists(
        st.tuples(*[st.integers(0, 999)] * 4, st.sampled_from(["cube", "stop sign"])), max_size=8
    )
)
def test_reading_what_was_written_gives_the_same_boxes(rows):
    bins = np.array([sorted(row[0:3:2]) + sorted(row[1:4:2]) for row in rows], int).reshape(-1, 4)
    value = boxes.Boxes(coordinates.dequantize(bins[:, [0, 2, 1, 3]]), [row[4] for row in rows])
    parsed = boxes.parse(value.to_text())
    assert not parsed.dropped
    assert parsed.value.classes == value.classes
    np.testing.assert_array_equal(parsed.value.bins(), value.bins())


@given(cases.generated_text)
def test_reading_never_raises_and_returns_real_boxes(text):
    value = boxes.parse(text).value
    assert (value.boxes[:, :2] <= value.boxes[:, 2:]).all()
    assert ((value.boxes >= 0) & (value.boxes <= 1)).all()
    assert boxes.parse(value.to_text()).value.classes == value.classes


def test_what_is_no_set_of_boxes_is_refused():
    with pytest.raises(ValueError, match="1 boxes with"):
        boxes.Boxes([[0, 0, 1, 1]], [])
    with pytest.raises(ValueError, match="boxes of type list, allowed: Boxes"):
        boxes.serialize([[0, 0, 1, 1]])
    with pytest.raises(ValueError, match=r"order 'score' of boxes \(scores: False"):
        boxes.Boxes([[0, 0, 1, 1]], ["cube"]).ordered("score")


@pytest.mark.parametrize(("axis", "bin"), [(4, 0), (0, 1000), (-1, 0), (0, -1)])
def test_a_coordinate_outside_the_vocabulary_is_refused(axis, bin):
    with pytest.raises(ValueError, match=f"coordinate v{axis}={bin}, allowed"):
        coordinates.token(axis, bin)


@pytest.mark.parametrize(
    "box",
    [[200, 150, 480, 360], [10, 20, 300, 200], [0.8, 0.9, 0.2, 0.1], [0.8, 0.1, 0.2, 0.9],
     [0.2, 0.1, 0.4, 1.2], [np.nan, 0, 1, 1]],
)  # fmt: skip
def test_boxes_in_pixels_or_of_turned_corners_are_refused_in_any_form(box):
    for record in (
        {"boxes": [[0, 0, 1, 1], box], "classes": ["cat", "cat"]},
        {"instances": [{"boxes": b, "class_name": "cat", "score": 1} for b in ([0, 0, 1, 1], box)]},
    ):
        with pytest.raises(ValueError, match=r"box 1 is .* shares 0\.\.1 of the picture"):
            boxes.serialize(record)


def test_a_box_that_reaches_a_little_out_of_its_picture_is_clipped():
    value = boxes.from_record({"boxes": [[-0.02, 0.1, 1.04, 0.9]], "classes": ["cat"]})
    np.testing.assert_allclose(value.boxes, [[0, 0.1, 1, 0.9]])
