"""Captions are judged by the pairs of colour and shape they name."""

import pytest

from fourm_jax.scenes import caption_scores

TRUTH = "a large red sphere left of a small blue box"


def test_pairs_are_a_colour_directly_before_a_shape():
    assert caption_scores.colour_shape_pairs(TRUTH) == {("red", "sphere"), ("blue", "box")}
    assert caption_scores.colour_shape_pairs("red left sphere, blue  Box") == {("blue", "box")}
    assert caption_scores.colour_shape_pairs("an empty scene") == set()


@pytest.mark.parametrize(
    ("predicted", "one", "every"),
    [
        ("a small blue box and a red sphere", True, True),
        ("a red sphere", True, False),
        ("a red sphere left of a blue box and a pink cone", True, False),
        ("a blue sphere left of a red box", False, False),
        ("", False, False),
    ],
)
def test_predictions_are_right_in_one_pair_or_in_all(predicted, one, every):
    assert caption_scores.names_a_correct_pair(predicted, TRUTH) is one
    assert caption_scores.all_pairs_right(predicted, TRUTH) is every


def test_named_colours_are_those_of_the_pairs():
    assert caption_scores.named_colours(TRUTH) == {"red", "blue"}


def test_the_constant_caption_is_the_most_frequent_pair():
    captions = ["a red box", "a red box and a blue cone", "a blue cone", "a small red box"]
    assert caption_scores.most_frequent_pair(captions) == "red box"
    with pytest.raises(ValueError, match="no caption"):
        caption_scores.most_frequent_pair(["nothing here"])
