"""Results in one folder: complete, continued, repeatable, drawn."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import generation
from fourm_jax.jobs.requests import Request
from fourm_jax.tokenizers.text import TextTokenizer
from tests.generate import tiny

PLAN = {"depth": {"scheme": "roar", "num_steps": 2, "temperature": 1.0}}
JOB = generation.Job(options={"targets": ["depth", "caption"], "plan": PLAN}, source="tiny")


@pytest.fixture(scope="module")
def generator():
    text = TextTokenizer.train(["a red cone"], vocab_size=230, num_sentinels=10, num_bins=2)
    return Generator(*tiny.trunk(), {"depth": tiny.depth_tokenizer(), "text": text})


def request(name, seed):
    pixels = tiny.conditions(1, ("rgb",))["rgb"]["pixels"][0]
    return Request(name=name, conditions={"rgb": pixels}, given={"rgb": "a.png"}, seed=seed)


def test_every_request_has_a_folder_and_what_is_there_is_not_made_again(generator, tmp_path):
    output = epath.Path(tmp_path)
    requests = [request("a", 3), request("b", 4)]
    assert generation.run(generator, requests[:1], output, JOB, show_progress=False) == 1
    before = (tmp_path / "a" / "result.json").stat().st_mtime_ns
    assert generation.run(generator, requests, output, JOB, show_progress=False) == 1
    assert (tmp_path / "a" / "result.json").stat().st_mtime_ns == before
    for name in ("a", "b"):
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files == {"result.json", "sheet.png", "ids.npz", "depth.npy", "depth.png"}


def test_a_result_says_everything_and_is_what_the_seed_gives_alone(generator, tmp_path):
    output = epath.Path(tmp_path)
    requests = [request("a", 3), request("b", 4)]
    generation.run(generator, requests, output, JOB, show_progress=False)
    said = json.loads((tmp_path / "b" / "result.json").read_text())
    assert (said["source"], said["seed"], said["conditions"]) == ("tiny", 4, {"rgb": "a.png"})
    assert said["options"]["plan"] == PLAN
    assert said["defaults"]["picture"]["guidance"] == 3.0
    assert set(said["versions"]) == {"fourm_jax", "jax"}
    assert said["results"]["caption (text)"] is not None
    alone = generator.generate({"rgb": requests[1].conditions["rgb"]}, ["depth"], plan=PLAN, seed=4)
    with np.load(tmp_path / "b" / "ids.npz") as ids:
        np.testing.assert_array_equal(ids["depth"], alone.ids["depth"][0])
    np.testing.assert_allclose(
        np.load(tmp_path / "b" / "depth.npy"), alone.decoded["depth"].raw[0], rtol=1e-6
    )


def test_results_of_other_settings_are_left_alone(generator, tmp_path):
    output = epath.Path(tmp_path)
    generation.run(generator, [request("a", 3)], output, JOB, show_progress=False)
    other = generation.Job(options={"targets": ["depth"]}, source="tiny")
    with pytest.raises(ValueError, match=r"has results of other settings: options is .* there"):
        generation.run(generator, [request("b", 3)], output, other, show_progress=False)


def test_results_are_not_begun_in_a_folder_of_other_things(generator, tmp_path):
    output, kept = epath.Path(tmp_path), tmp_path / "a" / "result.json"
    kept.parent.mkdir()
    kept.write_text("of a run")
    with pytest.raises(ValueError, match="holds 'a' and no results of generation; use another"):
        generation.run(generator, [request("a", 3)], output, JOB, show_progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert kept.read_text() == "of a run"


def test_results_of_other_weights_are_left_alone(generator, tmp_path):
    output = epath.Path(tmp_path)
    generation.run(generator, [request("a", 3)], output, JOB, show_progress=False)
    params = jax.tree.map(lambda x: x + 0.1, generator.params)
    after = Generator(generator.model, params, generator.tokenizers)
    with pytest.raises(ValueError, match="has results of other settings: weights is"):
        generation.run(after, [request("b", 3)], output, JOB, show_progress=False)


def test_a_result_of_another_request_is_never_taken_for_an_answer(generator, tmp_path):
    output, first = epath.Path(tmp_path), request("a", 3)
    generation.run(generator, [first], output, JOB, show_progress=False)
    other = dataclasses.replace(first, given={"rgb": "b.png"})
    expected = r"a has the result of another request: conditions is {'rgb': 'a.png'} there, {'rgb'"
    with pytest.raises(ValueError, match=expected):
        generation.run(generator, [other], output, JOB, show_progress=False)
    with pytest.raises(ValueError, match="seed is 3 there, 4 here"):
        generation.run(generator, [request("a", 4)], output, JOB, show_progress=False)


def test_the_steps_of_a_request_are_an_animation(generator, tmp_path):
    path = epath.Path(tmp_path / "steps.webp")
    generation.animate(generator, request("a", 3), JOB, path)
    with Image.open(path) as image:
        assert image.n_frames == 3  # two passes over the grid, and the text


def test_a_trunk_without_tokenizers_gives_ids_and_says_what_lacks(tmp_path):
    bare = Generator(*tiny.trunk())
    job = generation.Job(options={"targets": ["depth"]}, source="tiny")
    generation.run(bare, [request("a", 3)], epath.Path(tmp_path), job, show_progress=False)
    said = json.loads((tmp_path / "a" / "result.json").read_text())
    assert "tokenizer 'depth' is not at hand" in said["not_decoded"]["depth"]
    with np.load(tmp_path / "a" / "ids.npz") as ids:
        assert ids["depth"].shape == (9,)


def test_what_was_given_stands_beside_what_became_of_it(generator):
    depth = np.zeros((1, *tiny.DEPTH_SIZE), np.float32)
    mask = np.zeros(tiny.DEPTH_SIZE, bool)
    mask[:2] = True
    made = generator.generate({"depth": depth}, ["depth"], mask=mask, plan=PLAN)
    ids = generator.tokenizer("depth").encode(depth).reshape(1, -1)
    shown = generation.values(generator, {"depth": {"ids": ids}}, made)
    assert list(shown) == ["depth (given)", "depth"]
    assert list(generation.draw(generator, shown, with_legends=False)) == list(shown)


def test_best_of_and_several_samples_exclude_each_other():
    with pytest.raises(ValueError, match="the best of 2 and 3 samples, allowed: one of both"):
        generation.Job(options={}, source="tiny", num_samples=3, best_of=2)
