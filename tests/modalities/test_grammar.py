"""Grammars of text forms: every text that can be written obeys its own."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourm_jax.modalities import (
    boxes,
    captions,
    coordinates,
    instances,
    metadata_fields,
    palette,
    poses,
    serializers,
)
from fourm_jax.modalities.grammar import TOKENS, Grammar

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
FORMS = [form for form in serializers.names() if serializers.grammar(form)]


def some_words(rng, least):
    return " ".join("".join(rng.choice(LETTERS, 3)) for _ in range(rng.integers(least, 5)))


def some_boxes(rng):
    corners = np.sort(rng.random((rng.integers(4), 2, 2)), axis=1).reshape(-1, 4)
    return boxes.Boxes(corners, tuple(some_words(rng, 1) for _ in corners))


def some_metadata(rng):
    fields = rng.permutation(metadata_fields.FIELDS.fields)[: rng.integers(5)]
    return {field.name: float(rng.uniform(*field.encoding.possible)) for field in fields}


def some_palette(rng):
    return rng.integers(256, size=(rng.integers(1, palette.MAX_COLORS + 1), 3))


def some_poses(rng):
    count = int(rng.integers(3))
    corners = np.sort(rng.random((count, 2, 2)), axis=1).reshape(-1, 4)
    numbers = [rng.uniform(-1, 1, (count, size)) for size in (9, 3, 10)]
    return poses.Poses(corners, rng.integers(1024, size=(count, 8)), *numbers)


def some_instances(rng):
    squares = np.sort(rng.integers(instances.SIZE + 1, size=(rng.integers(3), 2, 2)), axis=1)
    outlines = tuple(
        np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)
        for (left, top), (right, bottom) in squares
    )
    codes = rng.integers(1024, size=(len(squares), instances.NUM_CODES))
    return instances.Instances(outlines, squares.reshape(-1, 4), codes)


VALUES = {
    "boxes": some_boxes,
    "captions": lambda rng: some_words(rng, 0),
    "instances": some_instances,
    "metadata": some_metadata,
    "palette": some_palette,
    "poses": some_poses,
}


def kinds_of(text):
    """Kinds of the tokens of a text, in which every word may be one piece or two."""
    kinds = ["begin"]
    for number, word in enumerate(coordinates.split(text)):
        kinds += [f"v{word.axis}"] if word.axis >= 0 else ["word"] * (1 + number % 2)
    return [*kinds, "end"]


def obeys(grammar, text):
    bins, numbers = dict(grammar.bins), coordinates.split(text)
    numbers = [word for word in numbers if word.axis >= 0]
    in_range = all(one.bin in bins.get(f"v{one.axis}", range(1000)) for one in numbers)
    pairs = itertools.pairwise(kinds_of(text))
    in_order = all(follower in getattr(grammar, kind, ()) for kind, follower in pairs)
    return in_range and in_order and is_complete(grammar, text) and has_keys_once(grammar, text)


def is_complete(grammar, text):
    """Whether as many tokens follow as are announced, of a text that announces once at most."""
    if grammar.counted is None:
        return True
    axis, kind, each = grammar.counted
    announced = [w.bin for w in coordinates.split(text) if f"v{w.axis}" == axis]
    return kinds_of(text).count(kind) == each * sum(announced)


def has_keys_once(grammar, text):
    """Whether no key comes twice, and each before one of its values."""
    if grammar.keyed is None:
        return True
    axis, other, sizes = grammar.keyed
    pairs = list(itertools.pairwise(coordinates.split(text)))
    found = [(key.bin, value) for key, value in pairs if f"v{key.axis}" == axis]
    fits = [f"v{value.axis}" == other and value.bin < sizes[key] for key, value in found]
    return all(fits) and len({key for key, _ in found}) == len(found)


def test_every_text_form_has_a_grammar():
    assert set(FORMS) == set(serializers.names()) == set(VALUES)


@pytest.mark.parametrize("form", FORMS)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_text_that_is_written_obeys_its_grammar(form, seed):
    rng = np.random.default_rng(seed)
    written = serializers.get(form).serialize(VALUES[form](rng), rng)
    text = written if isinstance(written, str) else " ".join(written)
    assert not serializers.get(form).parse(text).dropped
    assert obeys(serializers.grammar(form), text), text


@pytest.mark.parametrize(
    "form, text",
    [
        ("boxes", "cone"),
        ("boxes", "v0=1 v1=2 v2=3 v3=4"),
        ("boxes", "v0=1 v1=2 v2=3 cone"),
        ("captions", "a v0=108 cone"),
        ("instances", "point v0=1 v1=2 polygon v0=1 v1=2 v2=300 v3=4 v0=5"),
        ("metadata", "v1=3"),
        ("metadata", "v0=3 v1=3"),
        ("metadata", "v1=35 v0=3"),
        ("metadata", "v1=21 v0=3"),  # no field
        ("metadata", "v1=19 v0=2"),  # a score in two levels
        ("metadata", "v1=3 v0=3 v1=3 v0=4"),
        ("palette", ""),
        ("palette", "v0=3 v0=3 v0=3"),
        ("palette", "v1=1 v0=3 v0=256 v0=3"),
        ("palette", "v1=0"),
        ("palette", "v1=2 v0=3 v0=4 v0=5 v0=6 v0=7"),
        ("poses", "v0=1 v1=2 v2=3 v3=4"),
        ("poses", "human v0=1 v1=2 v2=3 pose"),
    ],
)
def test_what_cannot_be_read_is_no_text_of_its_grammar(form, text):
    assert not obeys(serializers.grammar(form), text)


def test_a_form_without_grammar_says_nothing(monkeypatch):
    monkeypatch.delattr(captions, "GRAMMAR")
    assert serializers.grammar("captions") is None


def test_after_what_a_form_does_not_have_anything_may_come():
    assert captions.GRAMMAR.after("v0") == ("word", "end")
    assert boxes.GRAMMAR.after("v3") == ("word",)
    assert palette.GRAMMAR.kinds == ("v0", "v1")
    assert set(poses.GRAMMAR.kinds) == set(TOKENS)


def test_a_grammar_that_leads_nowhere_is_refused():
    with pytest.raises(ValueError, match=r"'v1' may follow 'v0', allowed: 'end' and .*\('v0',\)"):
        Grammar(begin=("v0",), v0=("v1",))
    with pytest.raises(ValueError, match=r"may begin with \('end',\), allowed: at least one of"):
        Grammar(begin=("end",))
    with pytest.raises(ValueError, match=r"bins range\(0, 0\) of 'v0', allowed: at least one of"):
        Grammar(begin=("v0",), v0=("end",), bins=(("v0", range(0)),))
    with pytest.raises(
        ValueError, match=r"counted \('v1', 'v0', 3\), allowed: an axis and another"
    ):
        Grammar(begin=("v0",), v0=("end",), counted=("v1", "v0", 3))
    two = {"begin": ("v0",), "v0": ("v1",), "v1": ("end",)}
    for keyed in (("v0", "v2", (1,)), ("v0", "v0", (1,)), ("v0", "v1", (0,))):
        with pytest.raises(
            ValueError, match=r"keyed .*, allowed: two axes of .*, and sizes of which"
        ):
            Grammar(**two, keyed=keyed)
    with pytest.raises(ValueError, match="2 sizes, bins of 'v0' must be as many"):
        Grammar(**two, bins=(("v0", range(3)),), keyed=("v0", "v1", (4, 4)))
