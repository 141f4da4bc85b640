"""What people type into the page: lines, JSON, nothing; never a file."""

import pytest

from fourm_jax.demo import typed
from fourm_jax.modalities import registry

CAPTION, BOXES, PALETTE, METADATA = registry.resolve(
    "scenes", ("caption", "det", "color_palette", "metadata")
)


def test_an_empty_field_is_no_condition():
    assert typed.read("  \n", PALETTE) is None
    assert typed.number(" ", "guidance") is typed.integer(None, "steps") is None


def test_colours_are_read_however_they_are_written():
    expected = [[255, 0, 0], [20, 20, 200], [1, 2, 3], [1, 2, 3]]
    assert typed.read("#ff0000\n20 20 200\nrgba(1.2, 2, 3, 1)\n\n010203", PALETTE) == expected
    assert typed.read("[[1, 2, 3]]", PALETTE) == [[1, 2, 3]]


def test_boxes_are_lines_of_a_name_and_four_numbers():
    expected = [{"box": [0.1, 0.2, 0.4, 0.6], "label": "traffic light"}]
    assert typed.read("traffic light 0.1, 0.2, 0.4, 0.6", BOXES) == expected


def test_metadata_are_lines_of_a_name_and_a_number():
    assert typed.read("brightness 200\ncontrast=3.5", METADATA) == {
        "brightness": 200.0,
        "contrast": 3.5,
    }


def test_a_typed_name_of_a_file_stays_a_text(tmp_path):
    (tmp_path / "secret.txt").write_text("not for the page")
    assert typed.read(str(tmp_path / "secret.txt"), CAPTION) == str(tmp_path / "secret.txt")


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("256 0 0", PALETTE, r"color_palette: '256 0 0', allowed: #ff0000, or 255 0 0"),
        ("red", PALETTE, r"color_palette: 'red', allowed"),
        ("0.1 0.2 0.4 0.6", BOXES, r"det: '0.1 0.2 0.4 0.6', allowed: cone 0.1 0.2 0.4 0.6"),
        ("cone", BOXES, r"det: 'cone', allowed"),
        ("brightness", METADATA, r"metadata: 'brightness', allowed: brightness 200"),
        ("[1,", PALETTE, "color_palette is not valid JSON"),
        ("x" * 10_001, CAPTION, "caption: 10001 characters, allowed: 10000"),
    ],
)
def test_what_means_nothing_is_one_line(text, spec, message):
    with pytest.raises(ValueError, match=message):
        typed.read(text, spec)


def test_numbers_are_finite_and_steps_whole():
    assert (typed.number("-2.5", "weight"), typed.integer("16", "steps")) == (-2.5, 16)
    for text in ("nan", "inf", "many"):
        with pytest.raises(ValueError, match=f"guidance: '{text}', allowed: a number, or nothing"):
            typed.number(text, "guidance")
    with pytest.raises(ValueError, match=r"steps: '1.5', allowed: a whole number"):
        typed.integer("1.5", "steps")


def test_picking_and_clicking_add_lines():
    assert typed.with_colour("#010203", "rgba(255, 0, 0, 1)") == "#010203\n#ff0000"
    assert typed.with_colour("#010203", "no colour") == "#010203"
    assert typed.with_box("", "cone", (0.5, 0.75), (0.25, 0.5)) == "cone 0.250 0.500 0.500 0.750"
    assert typed.with_box("a 0 0 1 1", "", (0.5, 0.5), (0.5, 0.7)) == "a 0 0 1 1"


def test_a_record_is_written_as_it_is_read():
    palette = [[255, 0, 0], [1, 2, 3]]
    assert typed.read(typed.write(palette, PALETTE), PALETTE) == palette
    boxes = {"boxes": [[0.0, 0.25, 0.5, 1.0]], "classes": ["cone"]}
    (one,) = typed.read(typed.write(boxes, BOXES), BOXES)
    assert one == {"box": [0.0, 0.25, 0.5, 1.0], "label": "cone"}
    assert typed.read(typed.write({"brightness": 7}, METADATA), METADATA) == {"brightness": 7.0}
    assert typed.write("a cone", CAPTION) == "a cone"
