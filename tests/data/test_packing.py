"""A batch survives the way through one block of memory."""

import ml_dtypes
import numpy as np

from fourm_jax.data import packing


def batch():
    embeddings = np.zeros((3, 4, 2), ml_dtypes.bfloat16)
    embeddings[0, :4], embeddings[2, :1] = 1.5, -2
    return {
        "mixture": np.array([0, 1, 0], np.int32),
        "grid": {"ids": np.arange(12, dtype=np.uint16).reshape(3, 4), "present": np.ones(3, bool)},
        "text": {
            "ids": np.ones((3, 5), np.int32),
            "length": np.array([5, 0, 2], np.int32),
            "chunk": np.broadcast_to(np.arange(5, dtype=np.int32), (3, 5)),
        },
        "t5": {"embeddings": embeddings, "length": np.array([4, 0, 1], np.int32)},
        "embeddings": np.ones((3, 2), np.float32),  # a raw field of that name has no length
    }


def test_a_batch_comes_back_as_it_was():
    expected = batch()

    back = packing.unpack(packing.pack(expected))

    assert back.keys() == expected.keys()
    for entry, value in expected.items():
        if not isinstance(value, dict):
            value, back[entry] = {"": value}, {"": back[entry]}
        assert back[entry].keys() == value.keys()
        for name, array in value.items():
            assert back[entry][name].dtype == array.dtype
            np.testing.assert_array_equal(back[entry][name], array)


def test_embeddings_travel_without_their_padding():
    few, many = batch(), batch()
    many["t5"]["embeddings"] = np.zeros((3, 1000, 2), ml_dtypes.bfloat16)

    assert packing.pack(many).block.nbytes == packing.pack(few).block.nbytes
