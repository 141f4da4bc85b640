"""Parameter counts of the published sizes, from shapes alone."""

import math

import pytest

from fourm_jax.convert import fourm as fourm_checkpoint
from fourm_jax.modalities import registry
from fourm_jax.models import fourm, sizes

SETS = {
    "mod7": (registry.MOD7_IN, registry.MOD7_OUT),
    "mod21": (registry.MOD21_IN, registry.MOD21_OUT),
    "sr": (registry.SR_IN, registry.SR_OUT),
}


def counts(size, modalities="mod7", **changes):
    """(all parameters, those of the trunk: stacks, norms, context projection, mask token)."""
    inputs, outputs = SETS[modalities]
    specs = registry.resolve("fourm", dict.fromkeys((*inputs, *outputs)))
    model = fourm.FourM(specs, inputs, outputs, **sizes.get(size), **changes)
    shapes = fourm_checkpoint.parameter_shapes(model)
    trunk = ("encoder", "decoder", "context", "mask_token")
    inside = [s for path, s in shapes.items() if path[0] in trunk or path[-1] in trunk]
    return sum(map(math.prod, shapes.values())), sum(map(math.prod, inside))


@pytest.mark.parametrize(
    ("size", "swiglu", "gelu"),
    [
        ("tiny", 24_935_424, 25_000_704),
        ("small", 59_000_832, 59_124_736),
        ("base", 198_829_056, 199_088_640),
        ("large", 705_744_896, 706_533_376),
        ("xlarge", 2_822_971_392, 2_824_450_048),
    ],
)
def test_trunks_have_the_published_number_of_parameters(size, swiglu, gelu):
    assert counts(size)[1] == swiglu
    assert counts(size, mlp="gelu", use_bias=True)[1] == gelu


def test_qk_norm_adds_the_published_number_of_parameters():
    assert counts("base", qk_norm=True)[1] - counts("base")[1] == 4_608
    assert counts("large", qk_norm=True)[1] - counts("large")[1] == 9_216


@pytest.mark.parametrize(
    ("size", "modalities", "tied", "untied"),
    [
        ("base", "mod7", 360.79, 441.47),
        ("large", "mod7", 921.69, 1029.27),
        ("xlarge", "mod7", 3254.87, 3470.03),
        ("base", "mod21", 623.81, 834.40),
        ("large", "mod21", 1272.39, 1553.18),
        ("xlarge", "mod21", 3956.26, 4517.84),
        ("large", "sr", 907.18, 953.32),
    ],
)
def test_whole_models_have_the_published_number_of_parameters(size, modalities, tied, untied):
    assert abs(counts(size, modalities)[0] / 1e6 - tied) < 0.006
    assert abs(counts(size, modalities, tie_heads=False)[0] / 1e6 - untied) < 0.006


def test_an_unknown_size_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown size 'bsae'; did you mean 'base'"):
        sizes.get("bsae")
