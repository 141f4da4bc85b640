"""Parameter counts of the published sizes, from shapes alone."""

import collections
import functools
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


@functools.cache
def shapes_of(size, modalities, **changes):
    inputs, outputs = SETS[modalities]
    specs = registry.resolve("fourm", dict.fromkeys((*inputs, *outputs)))
    model = fourm.FourM(specs, inputs, outputs, **sizes.get(size), **changes)
    return fourm_checkpoint.parameter_shapes(model)


def parts(size, modalities="mod7", **changes):
    """Number of parameters by top-level name."""
    found = collections.Counter()
    for path, shape in shapes_of(size, modalities, **changes).items():
        found[path[0]] += math.prod(shape)
    return found


def counts(size, modalities="mod7", **changes):
    """(all parameters, those of the trunk: stacks, norms, context projection, mask token)."""
    shapes = shapes_of(size, modalities, **changes)
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


@pytest.mark.parametrize(("size", "more"), [("base", 4_608), ("large", 9_216), ("xlarge", 9_216)])
def test_qk_norm_adds_the_published_number_of_parameters(size, more):
    assert counts(size, qk_norm=True)[1] - counts(size)[1] == more


@pytest.mark.parametrize(
    ("size", "encoder", "decoder"),
    [
        ("tiny", 10_621_824, 14_165_376),
        ("small", 25_170_432, 33_567_232),
        ("base", 84_953_856, 113_283_840),
        ("large", 301_990_912, 402_703_360),
        ("xlarge", 1_208_010_752, 1_610_762_240),
    ],
)
def test_stacks_have_the_published_number_of_parameters(size, encoder, decoder):
    """With the final norms, as the table counts them."""
    stacks = parts(size)
    assert (stacks["encoder"], stacks["decoder"]) == (encoder, decoder)


@pytest.mark.parametrize(
    ("size", "modalities", "inputs", "tied", "untied"),
    [
        ("base", "mod7", 81.28, 80.68, 161.37),
        ("base", "mod21", 214.37, 210.62, 421.21),
        ("xlarge", "mod21", 571.65, 561.64, 1123.22),
        ("large", "sr", 155.30, 46.14, 92.28),
    ],
)
def test_embeddings_have_the_published_number_of_parameters(size, modalities, inputs, tied, untied):
    """Modality vectors that both sides share count with the inputs."""
    found = parts(size, modalities)
    shared = found["modality_embedding"]
    assert abs((found["encoder_embedding"] + shared) / 1e6 - inputs) < 0.02
    mask_token = sizes.get(size)["dim"]
    assert abs((found["decoder_embedding"] - mask_token) / 1e6 - tied) < 0.02
    heads = parts(size, modalities, tie_heads=False)["decoder_embedding"]
    assert abs((heads - mask_token) / 1e6 - untied) < 0.02


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
