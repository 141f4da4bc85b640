"""The registry holds the published modalities, and says what is wrong with a request."""

import json

import pytest

from fourm_jax.modalities import registry
from tests import golden_cases

PUBLISHED = {spec.name: spec for spec in registry.FOURM}
KINDS = {"img": ("pixels", "grid", "global"), "seq": ("sequence",), "seq_emb": ("embedding",)}


def test_published_ids_are_the_hashes_of_the_names():
    ids = {"rgb@224": 20716, "caption": 32652, "tok_clip@448": 3585, "tok_dinov2_global": 29172}
    assert {name: PUBLISHED[name].id for name in ids} == ids
    assert len({spec.id for spec in registry.FOURM}) == len(registry.FOURM)


def test_published_sizes():
    sizes = {
        name: (PUBLISHED[name].vocab_size, PUBLISHED[name].max_tokens)
        for name in ("rgb@224", "tok_semseg@224", "tok_dinov2@224", "tok_rgb@448", "t5_caption")
    }
    assert sizes == {
        "rgb@224": (0, 196),
        "tok_semseg@224": (4096, 196),
        "tok_dinov2@224": (8192, 256),  # 14-pixel patches
        "tok_rgb@448": (16384, 784),
        "t5_caption": (0, 77),
    }
    assert PUBLISHED["tok_imagebind_global"].kind == "global"
    assert PUBLISHED["tok_imagebind_global"].num_tokens == 16
    poses = PUBLISHED["human_poses"]
    assert (poses.max_tokens, poses.max_positions) == (275, 263)
    assert PUBLISHED["metadata"].chunked


def test_every_published_table_is_its_own():
    assert all(spec.table == spec.name for spec in registry.FOURM)


@pytest.mark.parametrize(
    ("inputs", "outputs", "num_inputs", "num_outputs"),
    [
        (registry.MOD7_IN, registry.MOD7_OUT, 8, 7),
        (registry.MOD21_IN, registry.MOD21_OUT, 19, 17),
        (registry.SR_IN, registry.SR_OUT, 14, 5),
    ],
)
def test_published_models_read_and_write_registered_modalities(
    inputs, outputs, num_inputs, num_outputs
):
    assert len(set(inputs)) == num_inputs and len(set(outputs)) == num_outputs
    assert set(outputs) <= set(inputs)
    assert all(spec.is_token for spec in registry.resolve("fourm", outputs))
    registry.resolve("fourm", inputs)


@golden_cases.FULL_SET
def test_the_registry_agrees_with_the_published_table():
    """Names of the full golden set that are not registered feed tokenizers only."""
    table = json.loads((golden_cases.directory("transforms") / "transforms.json").read_text())
    recorded = table["modality_info"]
    for spec in registry.FOURM:
        entry = recorded[spec.name]
        assert spec.kind in KINDS[entry["type"]]
        assert spec.id == table["modality_ids"][spec.name]
        assert spec.vocab_size == (entry.get("vocab_size") or 0)
        if entry["type"] != "img":
            assert spec.max_tokens == entry["max_tokens"]
        else:
            patches = (entry["input_size"] or 224) // (entry["patch_size"] or 16)
            assert spec.max_tokens == patches**2


def test_an_override_changes_one_modality_and_its_number_of_tokens():
    (spec,) = registry.resolve("fourm", ["tok_rgb@224"], {"tok_rgb@224": {"grid": (7, 7)}})
    assert (spec.max_tokens, spec.max_positions) == (49, 49)


@pytest.mark.parametrize(
    ("family", "names", "overrides", "message"),
    [
        ("foum", [], None, "unknown modality family 'foum'"),
        ("fourm", ["tok_rbg@224"], None, "did you mean 'tok_rgb@224'"),
        ("fourm", ["det", "det"], None, r"listed twice: \['det'\]"),
        ("fourm", ["det"], {"caption": {}}, "modality in overrides 'caption'"),
        ("fourm", ["det"], {"det": {"max_token": 3}}, "did you mean 'max_tokens'"),
        ("fourm", ["det"], {"det": {"vocab_size": 0}}, "vocab_size 0 with kind 'sequence'"),
    ],
)
def test_a_bad_request_names_what_is_wrong(family, names, overrides, message):
    with pytest.raises(ValueError, match=message):
        registry.resolve(family, names, overrides)
