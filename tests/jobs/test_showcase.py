"""Which changes the showcase asks for, and what it refuses; its figures need a finished run."""

import json

import numpy as np
import pytest
from etils import epath

from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import exhibits, showcase
from fourm_jax.models import weights
from fourm_jax.scenes import layout
from tests.generate import tiny

BOXES = {"boxes": np.array([[0.1, 0.2, 0.4, 0.6], [0.5, 0.5, 0.9, 0.9]])}


def scenes(caption, classes):
    det = {**BOXES, "classes": classes}
    return exhibits.Scenes(fields={"caption": [caption], "det": [det]})


def test_the_object_that_changes_is_the_only_one_of_its_shape():
    given = scenes("a large red cone left of a small blue box", ["cone", "box"])
    task = exhibits._task(given, 0, np.random.default_rng(0))
    assert task.box == (0.5, 0.5, 0.9, 0.9)  # "blue box" comes first in the order of pairs
    assert task.colour not in ("red", "blue")
    assert task.caption == f"a large red cone left of a small {task.colour} box"
    assert task.colour in layout.COLOURS


@pytest.mark.parametrize(
    ("caption", "classes"),
    [
        ("a red cone left of a blue cone", ["cone", "cone"]),
        ("a red cone left of a blue box", ["sphere", "sphere"]),
    ],
)
def test_a_scene_without_such_an_object_is_left_out(caption, classes):
    assert exhibits._task(scenes(caption, classes), 0, np.random.default_rng(0)) is None


def test_the_mask_of_an_object_has_room_to_mix_old_and_new_around_it():
    box = np.zeros((12, 12), bool)
    box[1:5, 6:8] = True
    grown = exhibits._grown(box)
    assert (grown[:8, 3:11]).all()
    assert grown.sum() == 8 * 8


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no held-out records .* a run of the quickstart has"):
        showcase.read(epath.Path(tmp_path), 4)


def test_what_is_there_is_not_made_again_and_other_figures_are_left_alone(tmp_path, monkeypatch):
    made = []

    def exhibit(generator, scenes, output, seed):
        made.append(seed)
        return {"share": 0.5}, ["<p>shown</p>"]

    monkeypatch.setattr(exhibits, "EXHIBITS", (exhibit,))
    given, output = scenes("a red cone", ["cone"]), epath.Path(tmp_path)
    bare = Generator(*tiny.trunk())
    for _ in range(2):
        page = showcase.run(bare, given, output, seed=3)
    assert made == [3]
    assert page.read_text().count("<p>shown</p>") == 1
    assert json.loads((tmp_path / "showcase.json").read_text())["exhibit"] == {"share": 0.5}
    there = json.loads((tmp_path / "showcase.json").read_text())["model"]
    assert there == weights.fingerprint(bare.params)  # as results and indexes of it say
    with pytest.raises(ValueError, match="has figures with seed 3, not 4: use another output"):
        showcase.run(bare, given, output, seed=4)
    other = tiny.trunk()[1]
    other = {**other, "new": np.ones(2, np.float32)}
    with pytest.raises(ValueError, match=r"has figures with model \w+, not \w+: use another"):
        showcase.run(Generator(tiny.trunk()[0], other), given, output, seed=3)


def test_a_showcase_that_was_stopped_continues_and_none_begins_beside_other_things(
    tmp_path, monkeypatch
):
    def stopped(generator, scenes, output, seed):
        (output / "parts").mkdir()
        raise KeyboardInterrupt

    given, bare = scenes("a red cone", ["cone"]), Generator(*tiny.trunk())
    monkeypatch.setattr(exhibits, "EXHIBITS", (stopped,))
    with pytest.raises(KeyboardInterrupt):
        showcase.run(bare, given, epath.Path(tmp_path))
    monkeypatch.setattr(exhibits, "EXHIBITS", ())
    assert showcase.run(bare, given, epath.Path(tmp_path)).exists()
    (tmp_path / "showcase.json").unlink()
    with pytest.raises(ValueError, match="holds 'parts' and no showcase; use another --output"):
        showcase.run(bare, given, epath.Path(tmp_path))


def test_a_palette_is_worth_the_named_colours_among_its_own():
    red, grey = layout.COLOURS["red"], (150, 150, 150)
    alone = [np.array([grey, red], np.uint8), np.array([grey], np.uint8)]
    captions = ["a large red cone", "a small blue box"]
    assert exhibits.palette_f1(alone, captions) == pytest.approx(2 * 1 / (1 + 2))
    every = [np.array(list(layout.COLOURS.values()), np.uint8)] * 2
    assert exhibits.palette_f1(every, captions) == pytest.approx(2 * 2 / (16 + 2))


def test_a_second_model_joins_figures_and_another_one_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(exhibits, "EXHIBITS", ())
    monkeypatch.setattr(exhibits, "super_resolution", super_resolution)
    given, output = scenes("a red cone", ["cone"]), epath.Path(tmp_path)
    model, params = tiny.trunk()
    bare, other = Generator(model, params), Generator(model, {"new": np.ones(2, np.float32)})
    showcase.run(bare, given, output)
    showcase.run(bare, given, output, upscaler=bare)
    assert json.loads((tmp_path / "showcase.json").read_text())["super_resolution"] == {
        "PSNR": 30.0
    }
    with pytest.raises(ValueError, match="has figures with upscaler"):
        showcase.run(bare, given, output, upscaler=other)


def super_resolution(upscaler, generator, scenes, output, seed):
    return {"PSNR": 30.0}, ["<p>enlarged</p>"]
