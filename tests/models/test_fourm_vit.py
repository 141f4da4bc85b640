"""The encoder alone: same numbers as inside FourM, pooled or dense, published sizes."""

import math

import jax
import numpy as np
import pytest

from fourm_jax.modalities import registry
from fourm_jax.models import fourm_vit, sizes
from tests.models import batches


@pytest.mark.parametrize("share", [True, False])
def test_features_equal_those_of_the_whole_model_on_the_same_patches(share):
    model = batches.model(num_registers=2, share_modality_embeddings=share)
    tokens = batches.tokens()
    params = batches.parameters(model, tokens)["params"]
    shape = (2, 4)
    patches = tokens.inputs.replace(
        modality=np.zeros(shape, int),
        position=np.arange(4) * np.ones(shape, int),
        id=np.zeros(shape, int),
        valid=np.ones(shape, bool),
    )
    whole = jax.jit(lambda p, t: model.apply({"params": p}, t, method="encode").hidden)
    expected = whole(params, tokens.replace(inputs=patches))[:, 2:]
    vit, chosen = fourm_vit.from_fourm(model, params, "rgb")
    dense = jax.jit(vit.apply)({"params": chosen}, tokens.pixels["rgb"])
    np.testing.assert_allclose(dense, expected, atol=1e-5)
    pooled = vit.clone(pool="mean").apply({"params": chosen}, tokens.pixels["rgb"])
    np.testing.assert_allclose(pooled, expected.mean(1), atol=1e-5)


@pytest.mark.parametrize(
    ("size", "millions"),
    [("tiny", 10.92), ("small", 25.56), ("base", 85.54), ("large", 302.78), ("xlarge", 1209.59)],
)
def test_encoders_have_the_published_number_of_parameters(size, millions):
    (spec,) = registry.resolve("fourm", ["rgb@224"])
    fields = sizes.get(size)
    del fields["decoder_depth"]
    vit = fourm_vit.FourMViT(spec, **fields)
    pixels = jax.ShapeDtypeStruct((1, 224, 224, 3), np.uint8)
    shapes = jax.tree.leaves(jax.eval_shape(vit.init, jax.random.key(0), pixels))
    assert abs(sum(math.prod(leaf.shape) for leaf in shapes) / 1e6 - millions) < 0.006


def test_wrong_choices_are_refused_by_name():
    model = batches.model()
    with pytest.raises(ValueError, match="unknown pixels modality 'caption'"):
        fourm_vit.from_fourm(model, {}, "caption")
    vit = fourm_vit.FourMViT(batches.CAPTION, 16, 1, 2)
    with pytest.raises(ValueError, match="'caption' is no pixels modality"):
        vit.init(jax.random.key(0), np.zeros((1, 4, 4, 3), np.uint8))
