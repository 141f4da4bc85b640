"""Tokenizers on disk: whole or absent, and checked before use."""

import functools
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from fourm_jax.tokenizers import base, store, trained
from fourm_jax.tokenizers.card import Card

ARGUMENTS = base.get("mlp").tiny()["vector_one_code"]


@pytest.fixture(scope="module")
def parts():
    module = base.build("mlp", ARGUMENTS)
    raw = module.signal.example(jax.random.key(1), (1, 1), 2)
    return module, jax.jit(module.init)(jax.random.key(0), raw)


@pytest.fixture
def saved(parts, tmp_path):
    base.save(tmp_path / "t", *parts, base.make_card("global", "mlp", ARGUMENTS))
    return tmp_path / "t"


def edit_card(folder, **changes):
    card = json.loads((folder / store.CARD).read_text())
    (folder / store.CARD).write_text(json.dumps({**card, **changes}))


def edit_tensors(folder, change):
    tensors = safetensors.numpy.load_file(folder / store.WEIGHTS)
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / store.WEIGHTS)


def test_a_card_is_strict_json_with_range_grid_and_vocabulary(saved):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    card = json.loads((saved / store.CARD).read_text(), parse_constant=refuse)
    assert card["vocab_size"] == 16
    assert card["grid"] == [1, 1]
    assert card["signal"]["low"] is None
    assert card["arguments"]["loss"] == "smooth_l1"


CARD_OF_AN_EARLIER_VERSION = """{
  "name": "features", "family": "mlp", "training_steps": 0, "reconstruction": {},
  "arguments": {
    "signal": {"axes": "c", "num_channels": 6}, "num_codes": 16, "latent_dim": 8,
    "encoder": {"dim": 8, "depth": 1}, "decoder": {"dim": 8, "depth": 1}, "loss": "mse",
    "quantizer_type": "ema", "quantizer": {"num_heads": 2, "compat": "ml-4m"}
  },
  "signal": {
    "axes": "c", "num_channels": 6, "kind": "values", "dtype": "float32", "num_classes": 0,
    "low": null, "high": null, "mean": 0.0, "std": 1.0
  },
  "grid": [1, 1], "vocab_size": 16, "codes_per_position": 2, "format": 1
}"""


def test_a_card_that_says_compat_opens_and_computes_as_published(tmp_path):
    (tmp_path / store.CARD).write_text(CARD_OF_AN_EARLIER_VERSION)
    card = Card.read(tmp_path / store.CARD)
    assert card.arguments["quantizer"] == {"num_heads": 2, "as_published": True}
    assert base.build(card.family, card.arguments).quantizer.as_published is True


def test_saving_again_replaces_the_tokenizer(saved, parts):
    card = base.make_card("global", "mlp", ARGUMENTS, training_steps=9)
    base.save(saved, *parts, card)
    assert base.load(saved).card.training_steps == 9
    assert [p.name for p in saved.parent.iterdir()] == ["t"]


def test_a_folder_that_holds_something_else_is_not_overwritten(parts, tmp_path):
    (tmp_path / "precious.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"exists and holds precious\.txt"):
        base.save(tmp_path, *parts, base.make_card("global", "mlp", ARGUMENTS))
    assert (tmp_path / "precious.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "vqgan"}, "unknown tokenizer family 'vqgan'"),
        ({"vocab_size": 99}, "vocab_size 99, its arguments give 16"),
        ({"grid": [2, 2]}, r"grid \(2, 2\), its arguments give \(1, 1\)"),
        ({"format": 99}, "card format 99, this version reads 1"),
        ({"colour": "red"}, r"unknown \['colour'\]"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(saved, changes, message):
    edit_card(saved, **changes)
    with pytest.raises(ValueError, match=message):
        base.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("params/to_latent/bias"), r"'params/to_latent/bias' \(8,\) is missing"),
        (lambda t: t.update(extra=np.zeros(2)), r"'extra' \(2,\) is not of this tokenizer"),
        (
            lambda t: t.update({"params/to_latent/bias": np.zeros(9, np.float32)}),
            r"'params/to_latent/bias' is float32 \(9,\), expected float32 \(8,\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(saved, change, message):
    edit_tensors(saved, change)
    with pytest.raises(ValueError, match=message):
        base.load(saved)


def test_a_truncated_or_pickled_weights_file_is_refused(saved):
    weights = saved / store.WEIGHTS
    for content in (weights.read_bytes()[:-10], b"\x80\x04\x95pickle"):
        weights.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights\.safetensors is not a valid safetensors"):
            base.load(saved)


def test_a_missing_file_is_named(saved):
    (saved / store.WEIGHTS).unlink()
    with pytest.raises(ValueError, match=r"weights\.safetensors is missing"):
        base.load(saved)


def test_ids_outside_the_vocabulary_or_of_another_shape_are_refused(saved):
    loaded = base.load(saved)
    with pytest.raises(ValueError, match="'global': ids must be integers in 0 … 15; got int64"):
        loaded.decode(np.array([[16]]))
    with pytest.raises(ValueError, match=r"ids of shape \(2,\), expected \[b, 1\]"):
        loaded.decode(np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="over 5 codes, the vocabulary has 16"):
        loaded.decode_probabilities(np.zeros((1, 1, 5)))


@pytest.mark.parametrize("num_devices", [1, 8])
def test_batches_larger_than_the_block_give_the_same_ids(saved, monkeypatch, num_devices):
    raw = np.asarray(base.load(saved).module.signal.example(jax.random.key(3), (1, 1), 38))
    whole = base.load(saved).encode(raw)
    devices = jax.local_devices()[:num_devices]
    monkeypatch.setattr(trained, "HOST_BATCH", 4)
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    loaded, used = base.load(saved), []

    def watched(run, block):
        ids = run(block)
        used.append(len(ids.sharding.device_set))
        return ids

    for methods in (loaded._jitted, loaded._spread):
        methods["encode"] = functools.partial(watched, methods["encode"])
    ids = loaded.encode(raw)

    np.testing.assert_array_equal(ids, whole)
    assert used == {1: [1] * 10, 8: [8] * 2}[num_devices]  # blocks of 4 and of 8 x 4 samples
