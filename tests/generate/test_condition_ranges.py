"""Raw values given as conditions are checked like records of a data set."""

import pytest

from fourm_jax.generate import conditions
from fourm_jax.modalities import registry
from fourm_jax.tokenizers import text

DET, METADATA, PALETTE = registry.resolve("fourm", ("det", "metadata", "color_palette"))


@pytest.fixture(scope="module")
def tokenizers():
    words = text.TextTokenizer.train(["a cat"], vocab_size=4608, class_names=["cat"])
    return {DET.tokenizer: words}


def boxes(*corners):
    return {"boxes": list(corners), "classes": ["cat"] * len(corners)}


@pytest.mark.parametrize(
    ("spec", "value", "message"),
    [
        (DET, boxes([200, 150, 480, 360]), r"'det': box 0 is .* shares 0\.\.1 of the picture"),
        (DET, boxes([0.8, 0.9, 0.2, 0.1]), "'det': box 0 is .* expected xmin < xmax"),
        (DET, {"boxes": None, "classes": []}, "'det': "),
        (METADATA, {"walkability": 57.0}, "'metadata': .*'walkability' is 57.0"),
        (PALETTE, [[0.5, 0.5, 0.5]], "'color_palette': .* allowed: whole numbers"),
    ],
)
def test_a_condition_out_of_range_is_refused_by_name(spec, value, message, tokenizers):
    with pytest.raises(ValueError, match=message):
        conditions.encode(spec, [value], tokenizers)


def test_a_condition_slightly_outside_is_clipped(tokenizers):
    inside, near = ([0, 0.1, 1, 0.9], [-0.02, 0.1, 1.04, 0.9])
    expected = conditions.encode(DET, [boxes(inside)], tokenizers)["ids"].tolist()
    assert conditions.encode(DET, [boxes(near)], tokenizers)["ids"].tolist() == expected
