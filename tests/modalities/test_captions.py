"""Captions: choosing one, reading generated text; and finding the serializer of a field."""

import numpy as np
import pytest
from hypothesis import given

from fourm_jax.modalities import captions, registry, serializers
from tests.modalities import cases


def test_the_published_choice_of_a_caption():
    for case in cases.golden("caption"):
        rng = np.random.default_rng(0)
        chosen = captions.select(case["value"], case["rand_aug_idx"], rng).to_text()
        if case["rand_aug_idx"] is None and isinstance(case["value"], list):
            assert chosen in case["value"]  # drawn
        else:
            assert chosen == case["result"]


def test_the_published_choice_of_caption_embeddings():
    for case in cases.golden("t5_caption"):
        chosen = captions.select_embedding(
            np.array(case["emb"]), np.array(case["mask_valid"]), case["rand_aug_idx"] or 0
        )
        np.testing.assert_array_equal(chosen, case["result"])


def test_every_caption_of_a_list_is_drawn():
    drawn = {captions.serialize(["a", "b"], np.random.default_rng(i)) for i in range(20)}
    assert drawn == {"a", "b"}
    assert captions.serialize(["a"]) == "a"


def test_reading_ends_at_eos_and_drops_control_and_coordinate_tokens():
    parsed = captions.parse("a red [S_1] sphere v0=3 on [PAD] grass [EOS] and more")
    assert parsed.value.text == "a red sphere on grass"
    assert [drop.text for drop in parsed.dropped] == ["[S_1]", "v0=3"]


@given(cases.generated_text)
def test_reading_never_raises(text):
    words = captions.parse(text).value.text.split()
    assert not {"[EOS]", "[PAD]", "[UNK]", "[S_1]", "v0=0"} & set(words)


def test_what_is_no_caption_is_refused():
    with pytest.raises(ValueError, match="caption of type int"):
        captions.serialize(3)
    with pytest.raises(ValueError, match=r"caption 2 of 2, allowed: 0\.\.1"):
        captions.select(["a", "b"], 2)
    with pytest.raises(ValueError, match="caption None of 2"):
        captions.serialize(["a", "b"])
    with pytest.raises(ValueError, match="caption embedding 1"):
        captions.select_embedding(np.zeros((1, 2, 3)), np.ones((1, 2)), 1)


def test_plain_text_is_the_form_of_a_sequence_that_names_none():
    forms = {spec.name: spec.text_form for spec in registry.SCENES if spec.kind == "sequence"}
    assert forms == {
        "caption": "captions",
        "det": "boxes",
        "color_palette": "palette",
        "metadata": "metadata",
    }


@pytest.mark.parametrize("form", serializers.names())
def test_a_text_form_says_how_its_fields_are_cropped_judged_and_drawn(form):
    module = serializers.get(form)
    assert module.CROP and module.PICTURE and isinstance(module.MEASURE, tuple)
    assert callable(module.serialize) and callable(module.parse) and callable(module.to_record)


@pytest.mark.parametrize(
    ("form", "field", "expected"),
    [
        ("captions", "a cone", "a cone"),
        ("captions", [{"caption": "a cone"}], "a cone"),
        ("captions", ["a cone", {"caption": "one"}], ["a cone", "one"]),
        ("metadata", {"brightness": 3.0}, {"brightness": 3.0}),
        ("palette", np.array([[1, 2, 3]]), [[1, 2, 3]]),
        ("palette", [{"1": [[9, 9, 9]], "2": [[1, 2, 3], [4, 5, 6]]}], [[1, 2, 3], [4, 5, 6]]),
        (
            "boxes",
            {
                "boxes": [[0, 0, 0.5, 1], [0, 0, 1, 1]],
                "classes": ["cat", "dog"],
                "scores": [0.9, 0.3],
            },
            {"boxes": [[0, 0, 0.5, 1]], "classes": ["cat"]},
        ),
        (
            "boxes",
            {"instances": [{"boxes": [0, 0, 0.5, 1], "class_name": "cat", "score": 0.9}]},
            {"boxes": [[0, 0, 0.5, 1]], "classes": ["cat"]},
        ),
    ],
)
def test_a_field_of_any_form_is_compared_in_that_of_what_is_generated(form, field, expected):
    found = serializers.as_record(form, field)
    plain = found.tolist() if isinstance(found, np.ndarray) else found
    if form == "boxes":
        plain = {"boxes": found["boxes"].tolist(), "classes": found["classes"]}
    assert plain == expected


def test_an_unknown_form_names_the_nearest():
    with pytest.raises(ValueError, match="'boxs'; did you mean 'boxes'"):
        serializers.get("boxs")
