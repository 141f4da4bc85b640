"""Human poses: the published serialization, geometry, and reading generated text."""

import numpy as np
import pytest
from hypothesis import given

from fourm_jax.modalities import poses
from tests.modalities import cases


def example() -> poses.Poses:
    case = cases.golden("human_poses")[0]
    return poses.Poses.from_hmr(case["raw"] or {}, case["orig_size"])


def test_words_equal_those_of_the_published_system():
    for case in cases.golden("human_poses"):
        value = poses.Poses.from_hmr(case["raw"] or {}, case["orig_size"])
        value = value.cropped(case["crop_coords"], case["orig_size"])
        text = value.to_text(group_orders=case["part_permutations"])
        assert text == case["string"].removesuffix(" ")


def test_a_human_is_39_tokens():
    for chunk in example().to_chunks():
        assert len(chunk.split()) == 39


def test_groups_are_shuffled_by_the_generator():
    texts = {tuple(example().to_chunks(np.random.default_rng(i))) for i in range(5)}
    assert len(texts) == 5
    assert all(sorted(t[0].split()) == sorted(example().to_chunks()[0].split()) for t in texts)


def test_no_humans_are_none():
    empty = poses.Poses.from_hmr({}, (10, 10))
    assert empty.to_text() == "none"
    assert poses.serialize({}) == ["none"]
    parsed = poses.parse("none")
    assert len(parsed.value.boxes) == 0
    assert not parsed.dropped


def test_humans_outside_the_crop_are_dropped():
    value = example()
    assert len(value.cropped((0, 0, 1, 1), (300, 400)).boxes) == 0


def test_values_outside_their_range_are_clipped():
    value = poses.Poses(np.zeros(4), np.zeros(8), np.full(9, 2.0), np.full(3, -9.0), np.full(10, 5))
    words = value.to_text().split()
    assert words.count("v0=999") == 9 + 10
    assert poses.parse(value.to_text()).value.betas.max() == 3.0


def test_reading_what_was_written_and_writing_it_again_gives_the_same_text():
    for i in range(5):
        text = example().to_text(np.random.default_rng(i))
        parsed = poses.parse(text)
        assert not parsed.dropped
        assert parsed.value.to_text() == example().to_text()


def test_a_mirrored_human_has_mirrored_box_rotation_and_camera():
    value = example()
    twice = value.flipped(value.codes).flipped(value.codes)
    assert twice.to_text() == value.to_text()
    mirrored = value.flipped(value.codes)
    np.testing.assert_allclose(mirrored.boxes[:, 0], 1 - value.boxes[:, 2])
    np.testing.assert_allclose(mirrored.rotations[:, 1], -value.rotations[:, 1])
    np.testing.assert_allclose(mirrored.rotations[:, 0], value.rotations[:, 0])


def test_reading_keeps_whole_humans_and_says_what_it_dropped():
    first, second, _ = example().to_chunks()
    broken = second.replace("shape", "pose")
    parsed = poses.parse(f"v0=1 {broken} {first} none at all")
    assert len(parsed.value.boxes) == 1
    assert parsed.value.to_text() == first
    assert [drop.reason.split(",")[0] for drop in parsed.dropped] == [
        "before the first human",
        "expected one of the groups ['shape']",
        "after none",
    ]
    short = " ".join(first.split()[:-1])
    assert "needs 10 values" in poses.parse(short).dropped[0].reason
    assert "without ['shape']" in poses.parse(first.split(" shape")[0]).dropped[0].reason


@given(cases.generated_text)
def test_reading_never_raises(text):
    value = poses.parse(text).value
    assert len(value.boxes) == len(value.codes) == len(value.betas)


def test_what_is_no_pose_is_refused():
    with pytest.raises(ValueError, match="poses of type list"):
        poses.serialize([1])
    with pytest.raises(ValueError, match="1 humans with"):
        poses.Poses(np.zeros(4), np.zeros(16), np.zeros(9), np.zeros(3), np.zeros(10))
    with pytest.raises(ValueError, match="pose codes"):
        poses.Poses(np.zeros(4), np.full(8, 1024), np.zeros(9), np.zeros(3), np.zeros(10))
