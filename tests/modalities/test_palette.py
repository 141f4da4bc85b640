"""Palettes: the published serialization, and reading generated text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourm_jax.modalities import palette
from tests.modalities import cases


def test_text_equals_that_of_the_published_system():
    for case in cases.golden("color_palette"):
        colors = case["raw"][0][str(case["chosen_length"])]
        assert palette.Palette(colors).to_text() == case["string"]


def test_a_record_of_several_lengths_has_one_drawn():
    raw = cases.golden("color_palette")[0]["raw"]
    allowed = {palette.Palette(colors).to_text() for colors in raw[0].values()}
    drawn = {" ".join(palette.serialize(raw, np.random.default_rng(i))) for i in range(100)}
    assert drawn == allowed
    with pytest.raises(ValueError, match="needs an rng"):
        palette.serialize(raw)


def test_the_count_and_each_colour_are_chunks():
    colors = np.array([[1, 2, 3], [255, 0, 9]], np.uint8)
    assert palette.serialize(colors) == ["v1=2", "v0=1 v0=2 v0=3", "v0=255 v0=0 v0=9"]


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=7))
def test_reading_what_was_written_gives_the_same_colours(colors):
    parsed = palette.parse(palette.Palette(colors).to_text())
    assert not parsed.dropped
    assert parsed.value.colors.tolist() == [list(color) for color in colors]


def test_reading_keeps_whole_colours_and_says_what_it_dropped():
    parsed = palette.parse("v1=2 v0=1 v0=2 v0=300 v0=4 v0=5 v0=6")
    assert parsed.value.colors.tolist() == [[4, 5, 6]]
    assert [drop.text for drop in parsed.dropped] == ["v0=1", "v0=2", "v0=300"]
    parsed = palette.parse("v1=1 v0=1 v0=2 v0=3 v0=4 v0=5 v0=6")
    assert parsed.value.colors.tolist() == [[1, 2, 3]]
    assert parsed.dropped[0].reason == "more than 1 colours"
    assert palette.parse("v1=2 v0=1 v0=2 v0=3").dropped[0].reason == "2 colours announced, 1 found"


@given(cases.generated_text)
def test_reading_never_raises(text):
    parsed = palette.parse(text)
    assert len(parsed.value.colors) <= 7
    assert len(parsed.value.colors) or parsed.dropped


def test_what_is_no_palette_is_refused():
    with pytest.raises(ValueError, match=r"values 0\.\.255"):
        palette.Palette([[256, 0, 0]])
    with pytest.raises(ValueError, match="palette of 8 colours"):
        palette.serialize(np.zeros((8, 3), np.uint8))
