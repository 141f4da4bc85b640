"""Features of encoder and decoder: shapes, rows, depths, and what is refused."""

import numpy as np
import pytest

from fourm_jax.generate import features
from fourm_jax.generate.generator import Generator
from tests.generate import tiny


@pytest.fixture(scope="module")
def generator():
    return Generator(*tiny.trunk(), {"depth": tiny.depth_tokenizer()})


def test_every_visible_token_has_a_vector(generator):
    encoded = generator.encode(tiny.conditions(3), batch_size=2)
    assert encoded.vectors.shape[0] == 3 and encoded.vectors.shape[2] == 16
    # six patches and captions of three to five tokens
    assert encoded.valid.sum(axis=1).tolist() == [9, 10, 11]
    assert np.isfinite(encoded.vectors[encoded.valid]).all()


def test_a_row_is_the_same_whatever_the_batch(generator):
    conditions = tiny.conditions(3)
    alone = generator.features({n: {k: v[:1] for k, v in e.items()} for n, e in conditions.items()})
    np.testing.assert_allclose(generator.features(conditions)[:1], alone, atol=1e-5)


def test_pooling_is_the_mean_over_the_tokens_that_there_are(generator):
    encoded = generator.encode(tiny.conditions(2))
    expected = encoded.vectors[0][encoded.valid[0]].mean(axis=0)
    np.testing.assert_allclose(encoded.pooled()[0], expected, atol=1e-5)
    none = features.Features(vectors=np.ones((1, 2, 3), np.float32), valid=np.zeros((1, 2), bool))
    assert none.pooled().tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("kind", ["encoder", "decoder:depth"])
def test_an_accelerator_packs_what_is_known_and_finds_the_same_vectors(
    generator, monkeypatch, kind
):
    plain = generator.features(tiny.conditions(2), kind)
    with tiny.accelerator(monkeypatch, features._compute) as seen:
        packed = generator.features(tiny.conditions(2), kind)
    assert [batch.inputs.packed for batch in seen] == [True]
    np.testing.assert_allclose(packed, plain, rtol=1e-4, atol=1e-5)


def test_a_depth_is_a_number_of_blocks(generator):
    conditions = tiny.conditions(2)
    whole = generator.encode(conditions).vectors
    np.testing.assert_allclose(generator.encode(conditions, depth=2).vectors, whole, atol=1e-5)
    assert abs(generator.encode(conditions, depth=1).vectors - whole).max() > 0.01
    with pytest.raises(ValueError, match=r"depth 3, allowed: 1\.\.2, or 0 for all"):
        generator.encode(conditions, depth=3)


def test_the_decoder_gives_a_vector_per_position_of_a_target(generator):
    vectors = generator.features(tiny.conditions(2), "decoder:depth")
    assert vectors.shape == (2, 16)
    assert abs(vectors - generator.features(tiny.conditions(2), "decoder:edge")).max() > 0.01


def test_what_the_whole_model_predicts_has_no_depth(generator):
    with pytest.raises(ValueError, match="depth 1 of features 'global', allowed: 0"):
        generator.features(tiny.conditions(2), "global:vector", depth=1)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("head", "unknown features 'head'"),
        ("encoder:depth", "the encoder has no target"),
        ("decoder", "unknown target of features 'decoder' ''"),
        ("decoder:caption", "unknown target of features 'decoder' 'caption'"),
        ("global:depth", "unknown target of features 'global' 'depth'"),
        ("global", "no tokenizer '' for raw signals"),
    ],
)
def test_features_that_there_are_not_are_refused(generator, kind, message):
    with pytest.raises(ValueError, match=message):
        generator.features(tiny.conditions(2), kind)
