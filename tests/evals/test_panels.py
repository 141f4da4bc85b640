"""Every value has a picture or a line of text, and cells stand under their names."""

import numpy as np
import pytest

from fourm_jax.evals import drawing, panels
from fourm_jax.evals.drawings import classes
from fourm_jax.modalities import registry
from fourm_jax.tokenizers.signal import Signal

GREY = np.full((4, 4), 200, np.uint8)
PICTURE = np.zeros((4, 4, 3), np.uint8)
VALUES = {
    "rgb": PICTURE,
    "depth": np.arange(16, dtype=np.float32).reshape(4, 4),
    "normal": np.zeros((4, 4, 3), np.float32),
    "semseg": np.arange(16, dtype=np.uint8).reshape(4, 4) % 6,
    "edge": GREY,
    "feature": np.random.default_rng(0).normal(size=(4, 4, 8)).astype(np.float32),
    "feature_global": np.zeros(32, np.float32),
    "color_palette": np.array([[255, 0, 0]], np.uint8),
    "det": {"boxes": np.array([[0, 0, 0.5, 1]]), "classes": ["cone"]},
}


@pytest.mark.parametrize("source", VALUES)
def test_maps_images_and_boxes_become_colour_pictures(source):
    draw = drawing.of(registry.of_source(source), reference={"depth": VALUES["depth"][None]})
    picture = draw(VALUES[source], PICTURE)
    assert picture.dtype == np.uint8
    assert picture.shape[-1] == 3


def test_texts_numbers_and_boxes_without_a_picture_become_lines():
    def line(source, value):
        return drawing.of(registry.of_source(source))(value, None)

    assert line("caption", "a cone") == "a cone"
    assert line("caption", "") == "(empty)"
    assert line("det", VALUES["det"]) == "cone"
    assert line("metadata", {"brightness": 100.0, "n_humans": 2}) == "brightness 100, n_humans 2"


def test_a_field_of_a_new_modality_is_drawn_by_its_values():
    spec = registry.of_source("edge").replace(source="heat", measure=(), name="tok_heat")
    drawn = drawing.of(spec)(GREY, None)
    np.testing.assert_array_equal(drawn, np.full((4, 4, 3), 200))
    labels = drawing.of(spec, signal=Signal(axes="hw", kind="classes", num_classes=2))
    assert labels(np.zeros((4, 4), np.int64), None).tolist() == [[[63] * 3] * 4] * 4


def test_no_two_of_cocos_classes_look_alike():
    colours = classes.colours(134)
    assert len(np.unique(np.uint8(255 * colours), axis=0)) == 134


def test_every_drawing_that_a_modality_names_exists():
    for family in registry.FAMILIES.values():
        for spec in family:
            assert callable(drawing.of(spec))


def test_a_sheet_has_one_cell_per_value():
    sheet = panels.sheet({"rgb": PICTURE, "caption": "a red cone " * 40})
    assert sheet.shape == (panels.CELL + 14, 2 * panels.CELL, 3)
