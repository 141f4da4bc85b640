"""The handwritten digits: real pictures with aligned signals and disjoint splits."""

import numpy as np
import pytest

from fourm_jax.data.sources import digits


def test_the_splits_hold_all_pictures_once():
    train, test = digits.make_source("train"), digits.make_source("test")
    images = [s._images for s in (train, test)]

    assert (len(train), len(test)) == (1500, 297)
    assert np.concatenate(images).sum() == digits._load()[0].sum()
    tenth = np.bincount(test._labels, minlength=10)
    assert tenth.min() >= 20


def test_a_record_has_aligned_signals():
    source = digits.make_source("train")
    record = source[0]

    assert record["caption"] == f"a handwritten {digits.WORDS[source._labels[0]]}"
    assert record["rgb"].shape == (32, 32, 3)
    assert record["rgb"].dtype == record["edge"].dtype == np.uint8
    assert set(np.unique(record["edge"])) == {0, 255}
    assert (record["rgb"][..., 0][record["edge"] == 255] >= 128).all()
    assert record["metadata"]["brightness"] == pytest.approx(record["rgb"].mean())
    assert record["metadata"]["caption_n_words"] == 3


def test_the_outline_of_a_square_is_its_border():
    grey = np.zeros((6, 6), np.uint8)
    grey[1:5, 1:5] = 200

    expected = np.zeros((6, 6), np.uint8)
    expected[1:5, 1:5] = 255
    expected[2:4, 2:4] = 0
    np.testing.assert_array_equal(digits.outline(grey), expected)


def test_a_flat_picture_has_no_entropy_and_two_equal_halves_have_one_bit():
    assert digits._entropy(np.zeros((4, 4), np.uint8)) == 0
    assert digits._entropy(np.tile(np.uint8([0, 255]), (4, 2))) == 1


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("val", {}, r"unknown split 'val'.*\['test', 'train'\]"),
        ("test", {"num_records": 298}, r"num_records 298, allowed: 0\.\.297"),
        ("test", {"image_size": 20}, "image_size 20"),
    ],
)
def test_bad_arguments_are_refused(split, options, message):
    with pytest.raises(ValueError, match=message):
        digits.make_source(split, **options)
