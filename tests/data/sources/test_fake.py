"""Fake data obeys the Batch contract for every kind of modality."""

import ml_dtypes
import numpy as np

from fourm_jax.data.sources import fake
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec

SPECS = (
    ModalitySpec(name="rgb", kind="pixels", grid=(2, 3), patch_size=4, num_channels=3),
    ModalitySpec(name="grid", kind="grid", grid=(2, 3), vocab_size=7),
    ModalitySpec(name="codes", kind="grid", grid=(2, 3), vocab_size=7, codes_per_position=4),
    ModalitySpec(name="vector", kind="global", max_tokens=5, vocab_size=7),
    ModalitySpec(name="text", kind="sequence", max_tokens=9, vocab_size=4608),
    ModalitySpec(name="fields", kind="sequence", max_tokens=9, vocab_size=4608, chunked=True),
    ModalitySpec(name="t5", kind="embedding", max_tokens=6, embedding_dim=8),
)


def test_a_batch_has_the_shapes_and_types_of_the_contract():
    batch = fake.batch(SPECS, 2)

    shapes = {
        name: {key: (value.shape, value.dtype.name) for key, value in entry.items()}
        for name, entry in batch.items()
        if name != "mixture"
    }
    sequence = {"ids": ((2, 9), "uint16"), "length": ((2,), "int32"), "chunk": ((2, 9), "int32")}
    assert shapes == {
        "rgb": {"pixels": ((2, 8, 12, 3), "uint8"), "present": ((2,), "bool")},
        "grid": {"ids": ((2, 6), "uint16"), "present": ((2,), "bool")},
        "codes": {"ids": ((2, 6, 4), "uint16"), "present": ((2,), "bool")},
        "vector": {"ids": ((2, 5), "uint16"), "present": ((2,), "bool")},
        "text": sequence,
        "fields": sequence,
        "t5": {"embeddings": ((2, 6, 8), "bfloat16"), "length": ((2,), "int32")},
    }
    assert batch["t5"]["embeddings"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(batch["mixture"], np.zeros(2, np.int32))


def test_sequences_end_with_eos_and_chunks_count_up():
    batch = fake.batch(SPECS, 32)

    for name in ("text", "fields"):
        ids, length = batch[name]["ids"], batch[name]["length"]
        assert length.min() >= 1
        assert (ids[np.arange(32), length - 1] == 3).all()
        assert (ids[np.arange(9)[None] >= length[:, None]] == 0).all()
    steps = np.diff(batch["fields"]["chunk"], axis=1)
    inside = np.arange(1, 9)[None] < batch["fields"]["length"][:, None]
    assert set(steps[inside]) == {0, 1}


def test_the_seed_decides_everything():
    one, same, other = (fake.batch(SPECS, 2, seed) for seed in (0, 0, 1))

    np.testing.assert_array_equal(one["grid"]["ids"], same["grid"]["ids"])
    assert (one["grid"]["ids"] != other["grid"]["ids"]).any()


def test_modalities_can_be_absent():
    present = fake.batch(SPECS, 64, absent=0.5)["grid"]["present"]

    assert 0.25 < present.mean() < 0.75


def test_the_source_gives_fixed_records_per_split():
    train, test = (
        fake.make_source(s, names=("tok_rgb",), num_records=3) for s in ("train", "test")
    )

    assert len(train) == 3
    assert train[1].keys() == {"tok_rgb"}
    np.testing.assert_array_equal(train[1]["tok_rgb"], train[1]["tok_rgb"])
    assert (train[1]["tok_rgb"] != test[1]["tok_rgb"]).any()
    assert {s.name for s in registry.FAMILIES["scenes"]} < fake.make_source("train")[0].keys()
