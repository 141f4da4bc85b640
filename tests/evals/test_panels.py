"""Every value has a picture or a line of text, and cells stand under their names."""

import io

import numpy as np
import pytest
from PIL import Image

from fourm_jax.evals import drawing, panels, pictures
from fourm_jax.evals.drawings import boxes, classes, humans
from fourm_jax.modalities import registry
from fourm_jax.modalities.instances import Answers, Instances
from fourm_jax.modalities.poses import Poses
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
    assert line("metadata", {"brightness": 100.0, "n_humans": 2}) == "brightness 100\nn_humans 2"


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


def test_a_sheet_has_one_cell_per_value_and_shows_its_text_whole():
    short = panels.sheet({"rgb": PICTURE, "caption": "a red cone"})
    assert short.shape[1:] == (2 * panels.CELL, 3)
    assert panels.sheet({"rgb": PICTURE, "caption": "a red cone " * 40}).shape[0] > short.shape[0]
    lines = panels._wrapped("a red cone " * 40)
    assert " ".join(lines) == ("a red cone " * 40).strip()
    assert max(map(panels._width, lines)) <= panels.SHOWN
    assert "".join(panels._wrapped("x" * 100)) == "x" * 100


def test_a_sheet_of_nothing_says_so():
    assert panels.sheet({}).min() < 128  # letters


def test_the_label_of_a_box_at_the_edge_stays_inside():
    corners = np.array([[0.9, 0.95, 1.0, 1.0]])
    drawn = boxes.over(PICTURE, corners, ["cylinder"])
    assert drawn.shape == (panels.SHOWN, panels.SHOWN, 3)
    written = drawn[-20:, -60:].max(axis=(0, 2)) > 100
    assert written.sum() > 20  # letters over a third of the last sixty columns


def test_people_and_instances_are_drawn_over_their_picture():
    one = Poses(
        boxes=np.array([[0.1, 0.1, 0.9, 0.9]]),
        codes=np.zeros((1, 8), np.int64),
        rotations=np.zeros((1, 9)),
        cameras=np.zeros((1, 3)),
        betas=np.zeros((1, 10)),
    )
    people = drawing.of(registry.of_source("human_poses"))
    assert people(one, PICTURE).max() == 255
    assert people(one, None) == "1 people"
    found = Answers(
        points=np.array([[112, 112]]),
        point_of=np.array([0]),
        boxes=np.array([[10, 10, 100, 100]]),
        codes=np.zeros((1, 16), np.int64),
    )
    drawn = drawing.of(registry.of_source("sam_instance"))(found, PICTURE)
    assert drawn[panels.SHOWN // 2, panels.SHOWN // 2].tolist() == [255, 0, 0]


def test_a_person_who_faces_the_camera_fills_the_box_left_side_to_the_right():
    facing = np.diag([1.0, -1.0, -1.0])
    found = humans.lines(np.array([10.0, 20.0, 50.0, 120.0]), facing)
    points = np.concatenate([line for _, line in found])
    np.testing.assert_allclose([points[:, 1].min(), points[:, 1].max()], [20, 120])
    assert (points[:, 0].min() + points[:, 0].max()) / 2 == pytest.approx(30)
    (arm,) = (line for colour, line in found[:1])
    assert arm[-1, 0] > 30  # the left hand, seen from the front
    spine = found[-1][1]
    assert spine[-1, 1] < spine[0, 1]  # the head above
    behind = humans.lines(np.array([10.0, 20.0, 50.0, 120.0]), np.diag([-1.0, -1.0, 1.0]))
    assert behind[0][1][-1, 0] < 30


def test_masks_of_a_record_tint_their_picture():
    square = np.array([[56, 56], [168, 56], [168, 168], [56, 168]], float)
    line = np.array([[0, 0], [1, 1]], float)
    corners = np.array([[56, 56, 168, 168], [0, 0, 0, 0]])
    found = Instances((square, line), corners, np.zeros((2, 16), np.int64))
    draw = drawing.of(registry.of_source("sam_instance"))
    drawn = draw(found, PICTURE)
    assert drawn.shape == (224, 224, 3)
    coloured = drawn.max(axis=-1) > 0
    assert coloured[60:164, 60:164].all()
    assert not coloured[:52].any() and not coloured[172:].any()
    assert draw(found, None) == "2 instances"


def test_a_global_vector_is_the_picture_of_its_nearest_neighbour():
    pictures = np.stack([np.full((2, 2, 3), shade, np.uint8) for shade in (10, 20)])
    reference = {"feature_global": np.array([[1.0, 0.0], [1.0, 2.0]]), "rgb": pictures}
    draw = drawing.of(registry.of_source("feature_global"), reference=reference)
    assert draw(np.array([0.5, 0.1])).tolist() == pictures[0].tolist()
    assert draw(np.array([0.0, 9.0])).tolist() == pictures[1].tolist()


def test_legends_name_classes_and_the_ends_of_the_scale():
    semseg, depth = registry.of_source("semseg"), registry.of_source("depth")
    names = drawing.legend(semseg, VALUES["semseg"])
    assert names.shape[0] == classes.ROW * len(semseg.classes)
    assert drawing.legend(depth, VALUES["depth"]).shape == (30, panels.SHOWN, 3)
    assert drawing.legend(registry.of_source("edge"), GREY) == ""


def test_pixels_without_depth_or_normal_leave_the_others_as_they_are():
    depth, hole = VALUES["depth"], VALUES["depth"].copy()
    hole[1, 1] = np.nan
    spec = registry.of_source("depth")
    drawn, whole = (drawing.of(spec, reference={"depth": one})(depth) for one in (hole, depth))
    np.testing.assert_allclose(drawn[3].astype(int), whole[3], atol=2)
    grey = drawing.of(registry.of_source("normal"))(np.full((1, 1, 3), np.nan, np.float32))
    assert grey.tolist() == [[[127, 127, 127]]]


def test_an_animation_holds_every_frame():
    frames = [np.full((4, 4, 3), shade, np.uint8) for shade in (0, 100, 200)]
    for suffix in (".gif", ".webp"):
        content = pictures.animation(frames, suffix)
        with Image.open(io.BytesIO(content)) as image:
            assert image.n_frames == 3
    with pytest.raises(ValueError, match=r"'\.mp4' of 3 frames, allowed: \.gif or \.webp"):
        pictures.animation(frames, ".mp4")
