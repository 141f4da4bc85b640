"""Every kind of value has a picture or a line of text."""

import numpy as np
import pytest

from fourm_jax.evals import panels
from fourm_jax.modalities.boxes import Boxes
from fourm_jax.modalities.captions import Caption
from fourm_jax.modalities.palette import Palette

GREY = np.full((4, 4), 200, np.uint8)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.arange(16, dtype=np.float32).reshape(4, 4),
        np.arange(16, dtype=np.uint8).reshape(4, 4) % 5,
        GREY,
        np.random.default_rng(0).normal(size=(4, 4, 8)).astype(np.float32),
        Palette(np.array([[255, 0, 0]])),
    ],
)
def test_maps_and_images_become_colour_pictures(value):
    picture = panels.panel(value)
    assert picture.dtype == np.uint8
    assert picture.shape[-1] == 3


def test_texts_and_boxes_become_lines():
    assert panels.panel(Caption("a cone")) == "a cone"
    boxes = Boxes(np.array([[0, 0, 0.5, 1]]), ("cone",))
    assert panels.panel(boxes) == "cone 0.00 0.00 0.50 1.00"


def test_a_sheet_has_one_cell_per_value():
    sheet = panels.sheet({"edge": GREY, "caption": Caption("a red cone " * 40)})
    assert sheet.shape == (panels.CELL + 14, 2 * panels.CELL, 3)
