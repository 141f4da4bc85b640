"""Colours by hand; the colour score fails blank and average pictures."""

import numpy as np
import pytest

from fourm_jax.data.sources import scenes as scenes_source
from fourm_jax.scenes import caption_scores, image_scores, world


def test_each_named_colour_is_recognised_bright_and_dark():
    tones = np.array(list(world.COLOURS.values()))
    pictures = np.concatenate([tones, tones // 2])[:, None, None].astype(np.uint8)
    np.testing.assert_array_equal(
        image_scores.colour_shares(pictures), np.tile(np.eye(len(tones)), (2, 1))
    )


def test_grey_black_and_white_have_no_colour():
    greys = np.array([0, 128, 255], np.uint8)[:, None, None, None].repeat(3, axis=-1)
    assert (image_scores.colour_shares(greys) == 0).all()


def test_colour_f1_counts_missing_and_unasked_colours():
    red, blue = ([world.COLOURS[name]] for name in ("red", "blue"))
    pictures = np.array([[red, red], [red, blue]], np.uint8)  # one red, one half red half blue
    assert image_scores.colour_f1(pictures, [{"red"}, {"red", "blue"}]) == 1
    # 2 right, 1 missing (pink), 1 not asked (blue): 2 * 2 / (3 asked + 3 shown).
    assert image_scores.colour_f1(pictures, [{"red", "pink"}, {"red"}]) == pytest.approx(4 / 6)


def test_true_pictures_pass_and_average_or_exchanged_pictures_fail():
    records = scenes_source.make_source("test", num_records=64).records(np.arange(64))
    asked = [caption_scores.named_colours(text) for text in records["caption"]]
    average = np.broadcast_to(records["rgb"].mean(axis=0), records["rgb"].shape).astype(np.uint8)
    assert image_scores.colour_f1(records["rgb"], asked) > 0.95
    assert image_scores.colour_f1(average, asked) == 0
    assert image_scores.colour_f1(np.full_like(average, 127), asked) == 0
    assert image_scores.colour_f1(np.roll(records["rgb"], 1, axis=0), asked) < 0.4


def test_an_unknown_colour_or_a_missing_picture_is_refused():
    with pytest.raises(ValueError, match="'beige'"):
        image_scores.colour_f1(np.zeros((1, 1, 1, 3), np.uint8), [["beige"]])
    with pytest.raises(ValueError, match="1 pictures for 2"):
        image_scores.colour_f1(np.zeros((1, 1, 1, 3), np.uint8), [[], []])
