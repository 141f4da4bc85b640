"""Keeping part of a picture: what is kept stays bit for bit, and no seam is decoded."""

import warnings

import numpy as np
import pytest

from fourm_jax.generate import editing
from fourm_jax.generate.generator import Generator
from fourm_jax.tokenizers.signal import Signal
from tests.generate import tiny

DEPTH = tiny.SPECS[1]
SIZE = tiny.DEPTH_SIZE  # cells of 2 x 2 pixels
CONTINUOUS = Signal(axes="hw")
LEFT = np.zeros(SIZE, bool)
LEFT[:, :2] = True  # the first column of cells


def test_a_pixel_opens_its_cell():
    mask = np.zeros((1, *SIZE), bool)
    mask[0, 2, 5] = True
    assert np.flatnonzero(editing.open_cells(mask, DEPTH.grid)[0]).tolist() == [5]


def test_masks_of_pixels_cells_and_other_sizes_agree():
    cells = np.array([[1, 0, 0]] * 3, bool)
    for mask in (LEFT, cells, np.kron(LEFT, np.ones((3, 3), bool))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = editing.pixel_mask(mask, DEPTH, SIZE)
        np.testing.assert_array_equal(found[0], LEFT)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros(SIZE, bool), "mask of 'depth' marks nothing"),
        (np.zeros(SIZE), r"mask of 'depth': float64 \[6, 6\], allowed: bool"),
        (np.zeros(6, bool), r"bool \[6\], allowed"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        editing.pixel_mask(mask, DEPTH, SIZE)


def test_boxes_mask_every_pixel_that_they_touch():
    mask = editing.box_mask([[0.0, 0.5, 0.34, 1.0]], (4, 3))
    assert mask.astype(int).tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 0], [1, 1, 0]]
    with pytest.raises(ValueError, match=r"box \[0.5, 0, 0.5, 1\], allowed: xmin < xmax"):
        editing.box_mask([[0.5, 0, 0.5, 1]], (4, 3))


def test_a_shifted_picture_has_its_new_part_masked():
    moved, mask = editing.shifted(np.arange(6).reshape(2, 3), 0, 1)
    assert moved.tolist() == [[0, 0, 1], [3, 3, 4]]
    assert mask.tolist() == [[True, False, False]] * 2
    moved, mask = editing.shifted(np.arange(6).reshape(2, 3), -1, 0)
    assert moved.tolist() == [[3, 4, 5], [3, 4, 5]]
    assert mask.tolist() == [[False] * 3, [True] * 3]
    with pytest.raises(ValueError, match="shift by 0 rows and 3 columns"):
        editing.shifted(np.zeros((2, 3)), 0, 3)


def test_outside_a_mask_nothing_changes_and_its_edge_is_mixed():
    old, new = np.zeros((1, 1, 8), np.float32), np.full((1, 1, 8), 9, np.float32)
    mask = np.array([[[False, False, True, True, True, True, True, True]]])
    mixed = editing.blend(old, new, mask, CONTINUOUS, margin=3)
    assert mixed[0, 0].tolist() == [0, 0, 3, 6, 9, 9, 9, 9]
    classes = Signal(axes="hw", dtype="int32", kind="classes", num_classes=10)
    ids = editing.blend(old.astype(np.int32), new.astype(np.int32), mask, classes)
    assert ids[0, 0].tolist() == [0, 0, 9, 9, 9, 9, 9, 9]


@pytest.fixture(scope="module")
def generator():
    return Generator(*tiny.trunk(), {"depth": tiny.depth_tokenizer()})


def test_kept_tokens_stay_and_outside_the_mask_the_result_is_the_original_decoded(generator):
    picture = np.random.default_rng(1).uniform(size=(2, *SIZE)).astype(np.float32)
    tokenizer = generator.tokenizer("depth")
    before = tokenizer.encode(picture).reshape(2, -1)
    rgb = tiny.conditions(2, ("rgb",))["rgb"]["pixels"]
    made = generator.generate(
        {"depth": picture, "rgb": rgb}, ["depth"], mask=LEFT, temperature=9.0, num_samples=2
    )
    kept = ~editing.open_cells(LEFT[None], DEPTH.grid)[0]
    np.testing.assert_array_equal(made.ids["depth"][:, kept], before.repeat(2, 0)[:, kept])
    assert (made.ids["depth"] != before.repeat(2, 0)).any()
    original = tokenizer.decode(before.reshape(2, 3, 3)).repeat(2, axis=0)
    raw = made.decoded["depth"].raw
    np.testing.assert_array_equal(raw[:, ~LEFT], original[:, ~LEFT])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "'depth' is a condition and a target: say with a mask"),
        ({"mask": {"edge": LEFT}}, r"mask of 'edge', allowed: targets that are given too: \['dep"),
        ({"mask": np.stack([LEFT] * 3)}, "mask of 'depth' for 3 rows, allowed: one, or 1 as given"),
    ],
)
def test_a_target_that_is_given_needs_its_mask(generator, options, message):
    with pytest.raises(ValueError, match=message):
        generator.generate({"depth": np.zeros((1, 9), int)}, ["depth"], **options)


def test_a_mask_without_a_target_that_is_given_is_refused(generator):
    with pytest.raises(ValueError, match=r"none of the targets .* is a grid that is given"):
        generator.generate({"edge": np.zeros((1, 9), int)}, ["depth"], mask=LEFT)
