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
