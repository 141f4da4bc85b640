"""Numbers out of their range: far outside refused, slightly outside clipped and counted."""

import math

import numpy as np
import pytest

from fourm_jax.modalities import boxes, instances, metadata, palette, poses, registry, serializers

OUTLINE = [[10, 10], [20, 10], [20, 20], [10, 20]]


def detected(box):
    return {"boxes": [[0.1, 0.1, 0.9, 0.9], box], "classes": ["cat", "cat"]}


def human(box=(10, 10, 60, 90), rotation=0.5, camera=5.0, beta=0.0, code=7):
    """HMR2.0 results of one human in a picture of 100 x 100 pixels."""
    return {
        "size": (100, 100),
        "bbox_xyxy": [box],
        "pose_tokenized": [[code] * 8],
        "pred_smpl_params": {"global_orient": [[rotation] * 9], "betas": [[beta] * 10]},
        "pred_cam": [[camera] * 3],
    }


def masks(box=(10, 10, 20, 20), outline=None, code=7):
    return {"points": [outline or OUTLINE], "bbox": [box], "token_ids": [[code] * 16]}


def test_every_text_form_counts_what_it_clips_and_leaves_out():
    assert {s.text_form for s in registry.sources().values() if s.text_form} <= {
        name for name in serializers.names() if serializers.get(name).count_changes
    }


@pytest.mark.parametrize(
    ("form", "value", "count"),
    [
        (boxes, detected([0.2, 0.2, 0.6, 0.6]), 0),
        (boxes, detected([-0.02, 0.1, 1.04, 0.9]), 2),
        (boxes, boxes.Boxes([[-0.02, 0.1, 1.04, 0.9]], ["cat"]), 2),
        (poses, {}, 0),
        (poses, human(), 0),
        (poses, human(box=(-5, 10, 60, 104)), 2),
        (poses, human(rotation=1.01, camera=20.0, beta=-3.1), 9 + 3 + 10),
        (instances, masks(), 0),
        (instances, masks(box=(-3, 0, 226, 200), outline=[[-3, 0], [226, 0], [3, 9]]), 2 + 2),
        (metadata, {"brightness": 255.0, "n_humans": 999, "original_width": 31_999}, 0),
        (metadata, {"brightness": 260.0, "n_humans": 1200, "occlusion_score": 0.9}, 3),
        (palette, [[0, 128, 255]], 0),
        (palette, [{"1": [[0, 128, 255]], "2": [[0, 1, 2], [3, 4, 5]]}], 0),
    ],
)
def test_numbers_slightly_outside_are_clipped_and_counted(form, value, count):
    assert form.count_changes(value) == (count, 0)
    assert form.serialize(value, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("form", "value", "message"),
    [
        (boxes, detected([200, 150, 480, 360]), r"box 1 is .* shares 0\.\.1 of the picture"),
        (boxes, detected([0.2, 0.4, 0.6, 0.3]), r"box 1 is .* ymin < ymax"),
        (boxes, boxes.Boxes([[10, 20, 300, 200]], ["cat"]), r"box 0 is .* shares 0\.\.1"),
        (poses, human(box=(0.2, 0.1, 0.1, 0.9)), "box of human 0 is .* xmin < xmax"),
        (poses, human(box=(10, 10, 600, 90)), r"box of human 0 is .* shares 0\.\.1"),
        (poses, human(rotation=90.0), r"global of human 0 is .*, allowed: -1 … 1"),
        (poses, human(camera=500.0), "camera of human 0 is .*, allowed: -1 … 19"),
        (poses, human(beta=math.nan), "shape of human 0 is .*, allowed: -3 … 3"),
        (poses, human(code=1024), r"pose codes .*, allowed: 0\.\.1023"),
        (poses, human(code=1.5), r"pose code 1\.5, allowed: whole numbers"),
        (instances, masks(box=(0.1, 0.1, 0.2, 0.2)), "bbox 0.1, allowed: whole numbers"),
        (instances, masks(box=(10, 10, 600, 20)), r"box of instance 0 is .* pixels 0\.\.224"),
        (instances, masks(box=(20, 10, 10, 20)), "box of instance 0 is .* xmin < xmax"),
        (instances, masks(outline=[[0, 0], [900, 0], [9, 9]]), "instance 0, point 1 is .*900"),
        (instances, masks(code=-1), r"mask codes .*, allowed: 0\.\.1023"),
        (metadata, {"brightness": 300.0}, "'brightness' is 300.0, allowed: -25.5 … 280.5"),
        (metadata, {"walkability": 57}, r"'walkability' is 57, allowed: -0\.1 … 1\.1"),
        (metadata, {"watermark_score": -3.0}, r"'watermark_score' is -3\.0, allowed: 0 … 1"),
        (metadata, {"n_humans": -1}, "'n_humans' is -1, allowed: 0 … 1e"),
        (metadata, {"brightness": "7"}, "'brightness' is '7', allowed: finite numbers"),
        (palette, [[0.5, 0.1, 1.0]], "palette with a value 0.5, allowed: whole numbers"),
        (palette, [[0, 0, 256]], r"colours .*, allowed: values 0\.\.255"),
        (palette, [{"1": [[0, 0, 256]]}], r"colours .*, allowed: values 0\.\.255"),
        (palette, [], r"palette without colours, allowed: 1\.\.7"),
    ],
)
def test_numbers_far_outside_are_refused_where_they_are_counted_and_written(form, value, message):
    with pytest.raises(ValueError, match=message):
        form.count_changes(value)
    with pytest.raises(ValueError, match=message):
        form.serialize(value, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("form", "value", "expected", "counts"),
    [
        (boxes, detected([0.2, 0.4, 0.6, 0.4]), ["v0=100 v1=100 v2=899 v3=899 cat"], (0, 1)),
        (boxes, detected([-0.03, 0.4, -0.01, 0.6]), ["v0=100 v1=100 v2=899 v3=899 cat"], (2, 1)),
        (boxes, boxes.Boxes([[0, 0, 0, 0]] * 2, ["cat"] * 2, [0.9] * 2), [], (0, 2)),
        (poses, human(box=(10, 10, 10, 90)), ["none"], (0, 1)),
    ],
)
def test_what_has_no_extent_is_left_out_alone_and_counted(form, value, expected, counts):
    assert form.serialize(value) == expected
    assert form.count_changes(value) == counts


def test_a_mask_without_extent_answers_no_point():
    everywhere = [[0, 0], [224, 0], [224, 224], [0, 224]]
    record = {
        "points": [everywhere, everywhere],
        "bbox": [(10, 10, 20, 10), (10, 10, 20, 20)],
        "token_ids": [[1] * 16, [2] * 16],
    }
    answers = " ".join(instances.serialize(record, np.random.default_rng(0)))
    assert answers.count("polygon v0=10 v1=10 v2=20 v3=20 v0=2") == instances.NUM_POINTS
    assert answers.count("polygon") == instances.NUM_POINTS
    assert instances.count_changes(record) == (0, 1)


def test_generated_boxes_of_one_bin_have_an_extent_and_are_written_as_the_same_bins():
    text = "v0=0 v1=5 v2=0 v3=5 cat v0=7 v1=999 v2=8 v3=999 dog"
    parsed = boxes.parse(text)
    assert not parsed.dropped
    assert (parsed.value.boxes[:, :2] < parsed.value.boxes[:, 2:]).all()
    assert " ".join(sorted(boxes.serialize(boxes.to_record(parsed.value)))) == text
