"""One table says how targets are generated; the role of a target follows from its spec."""

import pytest

from fourm_jax.generate import defaults
from fourm_jax.modalities import registry


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("tok_rgb", "picture"),
        ("tok_depth", "map"),
        ("tok_edge", "map"),
        ("feature_global", "vector"),
        ("caption", "text"),
        ("det", "text"),
    ],
)
def test_a_role_follows_from_kind_and_field(name, role):
    (spec,) = registry.resolve("scenes", [name])
    assert defaults.role(spec, registry.SCENES) == role


def test_every_modality_of_every_family_has_defaults():
    for family in registry.FAMILIES.values():
        for spec in family:
            if spec.is_token:
                target = defaults.target(spec, family, spec.num_tokens)
                assert target.name == spec.name
                assert target.num_steps <= max(spec.num_tokens, 1)


def test_changes_win_and_none_changes_nothing():
    (rgb,) = registry.resolve("scenes", ["tok_rgb"])
    plain = defaults.target(rgb, registry.SCENES, 64)
    assert defaults.target(rgb, registry.SCENES, 64, guidance=None) == plain
    assert defaults.target(rgb, registry.SCENES, 64, guidance=1.5).guidance == 1.5
    assert defaults.target(rgb, registry.SCENES, 5, num_steps=9).num_steps == 5
    (caption,) = registry.resolve("scenes", ["caption"])
    assert defaults.target(caption, registry.SCENES, 64, num_steps=9).num_steps == 1


def test_a_picture_from_texts_alone_has_drafts_and_one_from_maps_has_none():
    rgb, caption, det, depth = registry.resolve(
        "scenes", ["tok_rgb", "caption", "det", "tok_depth"]
    )
    assert defaults.drafts(rgb, [caption]) == ()  # a model of another kind of training has none
    rgb = rgb.replace(drafts=("det", "tok_semseg"))
    assert defaults.drafts(rgb, [caption]) == ("det", "tok_semseg")
    assert defaults.drafts(rgb, [caption, det]) == ("tok_semseg",)
    assert defaults.drafts(rgb, [caption, depth]) == ()
    assert defaults.drafts(rgb, []) == ()
    assert defaults.drafts(depth, [caption]) == ()


def test_a_draft_is_drawn_and_not_the_most_likely_one():
    (det,) = registry.resolve("scenes", ["det"])
    assert defaults.target(det, registry.SCENES, 26).temperature == 0
    assert defaults.target(det, registry.SCENES, 26, defaults.DRAFTS).temperature > 0


def test_a_picture_over_its_drafts_is_the_most_likely_one():
    (rgb,) = registry.resolve("scenes", ["tok_rgb"])
    assert defaults.target(rgb, registry.SCENES, 64, defaults.PAINTED).temperature == 0
