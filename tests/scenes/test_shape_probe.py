"""The probe names what stands in a picture by its colour; measures compare that with captions."""

import numpy as np
import pytest

from fourm_jax.scenes import caption_scores, image_scores, layout, shape_probe, world

RED, BLUE = layout.COLOURS["red"], layout.COLOURS["blue"]
CAPTION = "a large red box left of a small blue sphere"


def picture(*patches):
    """Grey, with (colour, rows, columns) painted over it."""
    made = np.full((32, 32, 3), 128, np.uint8)
    for colour, rows, columns in patches:
        made[rows, columns] = colour
    return made


def test_a_colour_that_covers_enough_is_found_where_it_is():
    shown = picture((RED, slice(4, 14), slice(2, 8)), (BLUE, slice(20, 22), slice(0, 2)))
    blobs = shape_probe.find(shown[None])
    assert [tuple(layout.COLOURS)[colour] for colour in blobs.colour] == ["red"]
    assert blobs.place.tolist() == [[4.5, 8.5, 13.0]]
    assert blobs.crop.shape == (1, 24, 24, 4)
    assert blobs.crop[0, :, :, 3].sum() == 60


def test_grey_pictures_show_nothing():
    assert len(shape_probe.find(picture()[None])) == 0
    assert np.all(image_scores.nearest_colours(picture()[None]) == -1)


def test_a_probe_learns_the_shapes_of_its_scenes():
    # Wide things are boxes, high ones are cones.
    rng = np.random.default_rng(0)
    pictures, captions = [], []
    for number in range(64):
        top, left = rng.integers(4, 12, 2)
        high, wide = ((14, 4), (4, 14))[number % 2]
        pictures.append(picture((RED, slice(top, top + high), slice(left, left + wide))))
        captions.append(("a large red cone", "a small red box")[number % 2])
    pictures = np.stack(pictures)
    shown = shape_probe.train(pictures, captions, num_steps=20).look(pictures)
    assert shape_probe.f1(shown, captions, ("shape", "size")) == 1.0


def test_the_probe_of_the_package_names_what_held_out_scenes_show(tmp_path):
    scenes = world.SceneSource("test", 32).records(np.arange(32))
    found = shape_probe.default().look(scenes["rgb"])
    assert shape_probe.f1(found, scenes["caption"], ("shape", "size")) > 0.85
    shape_probe.save(shape_probe.default(), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == shape_probe.WEIGHTS.read_bytes()


def seen(shape, size, column, lowest):
    return shape_probe.Seen(shape=shape, size=size, column=column, lowest=lowest)


def test_an_object_counts_if_its_colour_and_all_parts_are_right():
    shown = [{"red": seen("box", "small", 5, 9), "green": seen("cone", "small", 9, 9)}]
    # Two shown and two named; red is a box as it should, but not large, and green is none of them.
    assert shape_probe.f1(shown, [CAPTION], ("shape",)) == 2 * 1 / 4
    assert shape_probe.f1(shown, [CAPTION], ("shape", "size")) == 0.0


@pytest.mark.parametrize(
    ("relation", "expected"),
    [("left of", True), ("right of", False), ("in front of", False), ("behind", True)],
)
def test_what_is_nearer_stands_lower(relation, expected):
    assert seen("box", "small", 5, 9).stands(relation, seen("box", "small", 8, 20)) is expected


def test_places_need_both_objects(monkeypatch):
    class Fixed:
        def look(self, pictures):
            red, blue = seen("box", "large", 5, 9), seen("cone", "small", 9, 9)
            return [{"red": red, "blue": blue}, {"red": red}][: len(pictures)]

    monkeypatch.setattr(shape_probe, "default", Fixed)
    both = np.stack([picture(), picture()])
    assert shape_probe.PLACES.score(both, [CAPTION, CAPTION]) == 0.5
    assert shape_probe.SHAPE_F1.score(both[:1], [CAPTION]) == 0.5
    assert shape_probe.SHAPE_F1.constant(both).shape == (32, 32, 3)


def test_captions_name_things_and_how_they_stand():
    red, blue = caption_scores.things(CAPTION)
    assert (red.size, red.colour, red.shape) == ("large", "red", "box")
    assert caption_scores.relations(CAPTION) == [(red, "left of", blue)]
    assert caption_scores.relations("a large red box and a small blue sphere") == []
