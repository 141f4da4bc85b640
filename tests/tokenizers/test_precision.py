"""bfloat16 arithmetic of ViT tokenizers: what changes, what stays float32, how to ask for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fourm_jax
from fourm_jax.tokenizers import base
from tests import drawn, golden_cases
from tests.convert import fm_cases

SIDE = {"dim": 32, "depth": 2, "num_heads": 2}
VIT = {
    "signal": {"num_channels": 3, "low": -1.0, "high": 1.0},
    "image_size": 16,
    "patch_size": 4,
    "num_codes": 16,
    "latent_dim": 8,
    "encoder": SIDE,
    "decoder": SIDE,
}
DIVAE = base.get("divae").tiny()["rgb_unet"]


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """Folder of a ViT tokenizer that computes in float32, and a raw batch."""
    module = base.build("vqvae", VIT)
    variables = drawn.variables(base.abstract_variables(module), 0.1)
    folder = tmp_path_factory.mktemp("tokenizers") / "vit"
    base.save(folder, module, variables, base.make_card("vit", "vqvae", VIT))
    return folder, np.asarray(module.signal.example(jax.random.key(0), (16, 16), 4))


def test_a_tokenizer_in_bfloat16_agrees_with_float32_but_for_rounding(vit):
    folder, raw = vit
    full, half = fourm_jax.load(folder), fourm_jax.load(folder, dtype="bfloat16")
    jax.tree.map(np.testing.assert_array_equal, half.variables, full.variables)
    ids = full.encode(raw)
    assert (half.encode(raw) == ids).mean() > 0.9
    decoded, expected = half.decode(ids), full.decode(ids)
    assert decoded.dtype == np.float32
    error = np.abs(decoded - expected).max()
    assert 1e-4 < error < 0.1  # other arithmetic, nearly the same numbers


@pytest.mark.parametrize(("family", "arguments"), [("vqvae", VIT), ("divae", DIVAE)])
def test_matrix_products_are_in_the_chosen_type_and_parameters_in_float32(family, arguments):
    for dtype in ("float32", "bfloat16"):
        module = base.build(family, {**arguments, "dtype": dtype})
        assert module.encoder.dtype == module.decoder.dtype == jnp.dtype(dtype)
        shapes = base.abstract_variables(module)
        assert {leaf.dtype for leaf in jax.tree.leaves(shapes["params"])} == {jnp.dtype("float32")}
        raw = module.signal.example(jax.random.key(0), module.image_size, 1)
        jaxpr = jax.make_jaxpr(lambda v, raw, m=module: m.apply(v, raw, method="encode"))(
            drawn.variables(shapes), raw
        )
        assert ("bf16" in str(jaxpr)) == (dtype == "bfloat16")


def test_a_trunk_takes_its_precision_in_the_same_way():
    case = fm_cases.load(fm_cases.SHIPPED)
    half = fourm_jax.load(case.directory, overrides=case.overrides, dtype="bfloat16")
    assert half.model.dtype == jnp.bfloat16
    assert half.model.clone(dtype=jnp.float32) == case.model


def test_unknown_types_and_families_without_a_choice_are_refused(vit):
    with pytest.raises(ValueError, match=r"dtype 'float16', allowed: \('float32', 'bfloat16'\)"):
        fourm_jax.load(vit[0], dtype="float16")
    with pytest.raises(ValueError, match="dtype 'bfloat16' with backbone 'patch_mlp'"):
        base.build("vqvae", {**base.get("vqvae").tiny()["image"], "dtype": "bfloat16"})
    memcodes = golden_cases.shipped("tokenizers") / "mlp_memcodes"
    with pytest.raises(ValueError, match="'mlp_memcodes' of family 'mlp' has float32 only"):
        fourm_jax.load(memcodes, dtype="bfloat16")
    assert fourm_jax.load(memcodes, dtype="float32").card.family == "mlp"
