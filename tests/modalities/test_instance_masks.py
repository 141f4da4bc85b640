"""Outlines of instances become small masks and come back as masks of the crop."""

import numpy as np
import pytest

from fourm_jax.modalities import instance_masks

SQUARE = np.array([[1.0, 1.0], [3.0, 1.0], [3.0, 3.0], [1.0, 3.0]])


def test_a_mask_is_drawn_inside_its_own_box():
    """The lower left half of the box, by pixel centres; then the whole box."""
    triangle = np.array([[10.0, 20.0], [10.0, 24.0], [18.0, 24.0]])
    boxes = np.array([[10, 20, 18, 24], [1, 1, 3, 3]])
    masks = instance_masks.rasterize([triangle, SQUARE], boxes, 4)
    # centres on the diagonal itself are not inside
    assert masks[0].astype(int).tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert masks[1].all()


def test_a_hole_joined_to_its_outline_stays_empty():
    outer = [[0, 0], [0, 4], [4, 4], [4, 0], [0, 0]]
    ring = np.array([*outer, [1, 1], [3, 1], [3, 3], [1, 3], [1, 1]], float)
    (mask,) = instance_masks.rasterize([ring], np.array([[0, 0, 4, 4]]), 4)
    assert mask.astype(int).tolist() == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]


def test_drawn_masks_come_back_where_they_were():
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    ellipse = np.stack([100 + 70 * np.cos(angle), 120 + 40 * np.sin(angle)], -1)
    boxes = np.array([[30, 80, 170, 160]])
    masks = instance_masks.rasterize([ellipse], boxes)
    (whole,) = instance_masks.paste(masks.astype(np.float32), boxes)
    x, y = np.meshgrid(np.arange(224) + 0.5, np.arange(224) + 0.5)
    expected = ((x - 100) / 70) ** 2 + ((y - 120) / 40) ** 2 < 1
    assert (whole & expected).sum() / (whole | expected).sum() > 0.97


def test_wrong_boxes_are_refused():
    with pytest.raises(ValueError, match="1 polygons and 2 boxes"):
        instance_masks.rasterize([SQUARE], np.zeros((2, 4), int))
    with pytest.raises(ValueError, match="xmin < xmax"):
        instance_masks.rasterize([SQUARE], np.array([[3, 1, 3, 3]]))
    with pytest.raises(ValueError, match=r"inside 0\.\.224"):
        instance_masks.paste(np.ones((1, 4, 4)), np.array([[0, 0, 10, 225]]))
