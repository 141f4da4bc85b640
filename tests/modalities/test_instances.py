"""SAM instances: the published serialization, query points, and reading generated text."""

import numpy as np
import pytest
from hypothesis import given

from fourm_jax.modalities import instances
from tests.modalities import cases

SQUARE = instances.Instances(
    ([[10, 10], [20, 10], [20, 20], [10, 20]],), [[10, 10, 20, 20]], [range(500, 516)]
)


def typed(case: dict) -> instances.Instances:
    return instances.Instances.from_record(
        {
            "points": case["polygons_xy"],
            "bbox": case["bbox_ymin_xmin_ymax_xmax"],
            "token_ids": case["token_ids"],
        }
    )


def test_text_equals_that_of_the_published_system():
    for case in cases.golden("sam_instance"):
        value = typed(case)
        assert value.to_text(case["query_points_xy"]) == case["string_without_shuffling"]
        for point, found in case["instances_containing_point"]:
            assert value.containing(point) == found


def test_a_grid_of_points_is_the_published_one():
    grids = [case for case in cases.golden("sam_instance") if case["point_order"] == "grid"]
    for case in grids:
        grid = instances.grid_points(case["points_per_side"])
        assert grid.tolist() == case["query_points_xy"]


def test_a_point_names_y_first_and_codes_split_at_512():
    text = SQUARE.to_text([[11, 15], [0, 0]])
    assert text.startswith("point v0=15 v1=11 polygon v0=10 v1=10 v2=20 v3=20 v0=500")
    assert "v0=511 v1=0 v1=1 v1=2 v1=3 point v0=0 v1=0 none" in text


def test_shuffling_keeps_points_and_instances():
    points = instances.random_points(np.random.default_rng(0))
    chunks = SQUARE.to_chunks(points)
    shuffled = SQUARE.to_chunks(points, np.random.default_rng(1))
    assert shuffled != chunks
    assert sorted(shuffled) == sorted(chunks)


def test_reading_what_was_written_gives_points_boxes_and_codes():
    parsed = instances.parse(SQUARE.to_text([[11, 15], [0, 0]]))
    assert not parsed.dropped
    assert parsed.value.points.tolist() == [[11, 15], [0, 0]]
    assert parsed.value.point_of.tolist() == [0]
    assert parsed.value.boxes.tolist() == SQUARE.boxes.tolist()
    assert parsed.value.codes.tolist() == SQUARE.codes.tolist()


def test_reading_keeps_whole_polygons_and_says_what_it_dropped():
    polygon = SQUARE.to_text([[11, 15]]).split(" polygon ")[1]
    inverted = polygon.replace("v2=20", "v2=5")
    text = (
        f"v0=1 point v0=3 polygon {polygon} point v0=300 v1=3 none point v0=1 v1=2 "
        f"polygon {polygon} v0=1 polygon {inverted} polygon {polygon} none x"
    )
    parsed = instances.parse(text)
    assert parsed.value.points.tolist() == [[2, 1]]
    assert len(parsed.value.boxes) == 1
    assert [drop.reason.split()[0:2] for drop in parsed.dropped] == [
        ["before", "the"],
        ["point", "without"],
        ["polygon", "without"],
        ["point", "without"],
        ["polygon", "needs"],
        ["polygon", "with"],
        ["words", "after"],
    ]


@given(cases.generated_text)
def test_reading_never_raises(text):
    value = instances.parse(text).value
    assert len(value.boxes) == len(value.codes) == len(value.point_of)
    assert (value.point_of < len(value.points)).all()


def test_what_is_no_set_of_instances_is_refused():
    with pytest.raises(ValueError, match="instances of type dict, allowed"):
        instances.serialize({}, np.random.default_rng(0))
    with pytest.raises(ValueError, match="points that an rng draws"):
        instances.serialize(SQUARE)
    with pytest.raises(ValueError, match="1 polygons, 0 boxes"):
        instances.Instances(([[0, 0]],), [], [])
