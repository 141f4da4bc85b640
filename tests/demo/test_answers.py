"""A filled-in form becomes a request, answers step by step, and one file with everything."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from fourm_jax.demo import answers, examples, forms
from fourm_jax.demo.forms import Form
from fourm_jax.generate.generator import Generator
from fourm_jax.tokenizers.text import TextTokenizer
from tests.generate import tiny

PICTURE = np.zeros((4, 6, 3), np.uint8)
SOURCES = {"rgb": "picture", "depth": "picture"}  # so that "depth" is what a picture becomes


@pytest.fixture(scope="module")
def generator():
    model, params = tiny.trunk()
    specs = tuple(s.replace(source=SOURCES.get(s.name, s.source)) for s in model.modalities)
    text = TextTokenizer.train(["a red cone"], vocab_size=230, num_sentinels=10, num_bins=2)
    tokenizers = {"depth": tiny.depth_tokenizer(), "text": text}
    return Generator(model.clone(modalities=specs), params, tokenizers)


def test_the_page_finds_the_fields_of_a_model(generator):
    assert forms.pixels_of(generator).name == "rgb"
    assert forms.painted(generator) == "depth"
    assert forms.maps_of(generator) == []  # the only map with a tokenizer is the picture's
    assert (forms.texts_of(generator), forms.caption_of(generator)) == (["caption"], "caption")


def test_a_picture_is_read_as_pixels_and_a_marked_one_is_painted(generator):
    whole = Form(picture=PICTURE, targets=["caption"])
    request, job = forms.request(whole, generator, "tiny")
    assert list(request.conditions) == ["rgb"]
    assert job.options == {"targets": ["caption"]}
    mask = np.zeros((8, 12), bool)  # drawn on a picture that is shown enlarged
    mask[1, 2] = True
    marked = Form(picture=PICTURE, mask=mask, targets=["depth"], seed=3)
    request, job = forms.request(marked, generator, "tiny")
    assert (list(request.conditions), request.seed) == (["depth"], 3)
    assert np.argwhere(job.options["mask"]).tolist() == [[0, 1]]


def test_a_mask_on_a_reduced_picture_covers_what_was_drawn_over():
    assert (
        forms.fitted(np.array([[True, False]]), (2, 4)).tolist() == [[True, True, False, False]] * 2
    )


def test_weights_make_guides_and_a_text_to_stay_away_from_makes_one(generator):
    texts = {"caption": "a red cone"}
    form = Form(texts=texts, weights={"caption": 2.0}, targets=["depth"])
    request, job = forms.request(form, generator, "tiny")
    assert not request.conditions
    assert "guidance" not in job.options
    assert [(g.name, g.weight) for g in job.options["guides"]] == [("caption", 2.0)]
    away = Form(texts=texts, away="a blue box", targets=["depth"])
    guides = forms.request(away, generator, "tiny")[1].options["guides"]
    assert [(g.value, g.weight) for g in guides] == [("a red cone", 3.0), ("a blue box", -2.0)]


def test_a_weight_of_what_is_not_given_leaves_guidance_by_all_conditions(generator):
    form = Form(texts={"caption": "a cone"}, weights={"depth": 2.0}, targets=["edge"], guidance=4.0)
    assert forms.request(form, generator, "tiny")[1].options["guidance"] == 4.0


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Form(texts={"caption": "a cone"}), "no target is chosen"),
        (Form(targets=["depth"]), "nothing is given: upload a picture or type something"),
        (Form(targets=["depth"], seed=-1), r"seed -1, allowed: 0\.\.4294967295"),
        (Form(targets=["depth"], num_steps=0), r"0 steps, allowed: 1\.\.4096"),
        (Form(picture=PICTURE, targets=["depth"]), "'depth' shows the picture that is given"),
        (
            Form(picture=PICTURE, mask=np.ones((4, 6), bool), targets=["caption"]),
            "a part of the picture is marked: choose 'depth' as a target too",
        ),
        (
            Form(mask=np.ones((4, 6), bool), targets=["depth"]),
            "something is drawn, but there is no picture",
        ),
        (
            Form(
                texts={"caption": "a cone"}, weights={"caption": 2.0}, targets=["depth"], guidance=4
            ),
            "guidance 4 is of all conditions together: leave it empty beside guidance by single",
        ),
        (
            Form(texts={"caption": "a cone"}, away="a box", targets=["depth"], guidance=4),
            "guidance 4 is of all conditions together: leave it empty",
        ),
    ],
)
def test_a_form_that_cannot_be_answered_says_why(generator, form, message):
    with pytest.raises(ValueError, match=message):
        forms.request(form, generator, "tiny")


def test_answers_come_step_by_step_and_end_with_a_file(generator, tmp_path):
    form = Form(
        picture=PICTURE, texts={"caption": "a red cone"}, targets=["edge"], num_steps=2, seed=5
    )
    *steps, last = answers.answer(generator, form, "tiny", tmp_path)
    assert [one.status for one in steps] == ["step 1: edge", "step 2: edge"]
    assert last.status.startswith("done in 2 steps")
    assert "edge: " in last.status  # its tokenizer lacks, and that is said
    assert last.record["seed"] == 5
    with zipfile.ZipFile(last.file) as archive:
        names = set(archive.namelist())
        said = json.loads(archive.read("result.json"))
    assert names == {"result.json", "sheet.png", "ids.npz", "given_picture.png"}
    assert said["conditions"]["caption"] == "a red cone"
    assert said["options"]["num_steps"] == 2


def test_words_of_a_guide_that_the_model_does_not_know_are_said(generator, tmp_path):
    texts, weights = {"caption": "a dog"}, {"caption": 2.0}
    form = Form(texts=texts, weights=weights, targets=["edge"], num_steps=2)
    first = next(iter(answers.answer(generator, form, "tiny", tmp_path)))
    assert "does not know 'dog'" in first.status


def test_uploads_are_pictures_of_limited_size(tmp_path, monkeypatch):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    np.testing.assert_array_equal(forms.read_upload(str(tmp_path / "a.png")), PICTURE)
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(ValueError, match="the file cannot be used: unreadable picture"):
        forms.read_upload(str(tmp_path / "b.png"))
    monkeypatch.setattr(forms, "MAX_PIXELS", 23)
    with pytest.raises(ValueError, match="picture of 6 x 4 pixels, allowed: 23 in all"):
        forms.read_upload(str(tmp_path / "a.png"))


def test_a_source_without_records_has_no_examples(generator, tmp_path):
    assert examples.read(generator, answers.epath.Path(tmp_path), 3) == []
