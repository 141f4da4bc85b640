"""Many rows of conditions from files, each line with a name and a seed."""

import json

import numpy as np
import pytest
from etils import epath
from PIL import Image

from fourm_jax.jobs import requests
from fourm_jax.modalities import registry

SPECS = {s.name: s for s in registry.resolve("scenes", ("rgb", "caption", "color_palette"))}


def read(path, **options):
    return requests.read(epath.Path(path), SPECS, **{"seed": 5, **options})


def test_lines_of_json_are_requests_with_their_own_name_and_seed(tmp_path):
    lines = [
        {"caption": "a red cone", "color_palette": [[255, 0, 0]]},
        {"caption": "a cyan box", "name": "box", "seed": 9},
    ]
    (tmp_path / "a.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    first, second = read(tmp_path / "a.jsonl")
    assert first.conditions == lines[0]
    assert (first.name, first.seed) == ("00000", 5)
    assert (second.name, second.seed) == ("box", 9)
    assert second.to_json() == {"name": "box", "conditions": {"caption": "a cyan box"}, "seed": 9}


def test_a_table_has_captions_with_or_without_a_heading(tmp_path):
    for content in ("a red cone\na cyan box\n", "Prompt\tNote\na red cone\tx\na cyan box\ty\n"):
        (tmp_path / "a.tsv").write_text(content)
        captions = [one.conditions["caption"] for one in read(tmp_path / "a.tsv")]
        assert captions == ["a red cone", "a cyan box"]
    (tmp_path / "a.tsv").write_text("name\tcaption\tcolor_palette\none\ta cone\t[[1, 2, 3]]\n")
    (one,) = read(tmp_path / "a.tsv")
    assert (one.name, one.conditions["color_palette"]) == ("one", [[1, 2, 3]])


@pytest.mark.parametrize(
    ("name", "content"), [("a.tsv", "caption\na cône\t\n"), ("a.jsonl", '{"caption": "a cône"}')]
)
def test_what_spreadsheets_write_before_a_text_is_no_part_of_it(name, content, tmp_path):
    (tmp_path / name).write_bytes(content.encode("utf-8-sig"))
    (one,) = read(tmp_path / name)
    assert one.conditions == {"caption": "a cône"}
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{name} is no text in UTF-8: .*0xf4"):
        read(tmp_path / name)


def test_a_folder_of_pictures_is_a_request_each(tmp_path):
    for name in ("b.png", "a.jpg"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    assert [one.name for one in read(tmp_path)] == ["a.jpg", "b.png"]
    assert read(tmp_path)[0].conditions == {"rgb": str(tmp_path / "a.jpg")}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"captoin": "x"}', "line 1: unknown condition 'captoin'; did you mean"),
        ("a.jsonl", "[1]", "line 1: expected names with values"),
        ("a.jsonl", '{"caption": "x"}\n{"caption', "line 2 is not valid JSON"),
        ("a.jsonl", '{"caption": "x", "name": "../y"}', r"name '\.\./y', allowed: up to 100"),
        ("a.jsonl", '{"caption": "x", "seed": -1}', "seed -1, allowed: an integer from 0 on"),
        ("a.jsonl", '{"caption":"x","name":"a"}\n{"caption":"y","name":"a"}', "'a' stands there t"),
        ("a.jsonl", "", "no request in it"),
        ("a.tsv", "caption\na red\tcone\n", "line 2: 2 values between tabs, the heading has 1"),
        ("a.tsv", "colour\tsize\nred\tbig\n", "unknown column 'colour'"),
        ("a.csv", "x", "expected a folder of pictures, NAME.jsonl or NAME.tsv"),
    ],
)
def test_a_file_that_cannot_be_read_names_its_line(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name)
