"""Records survive the trip to bytes and back; anything else is refused by name."""

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from fourm_jax.data.storage import records

RECORD = {
    "ids": np.array([3, 65535], np.uint16),
    "pixels": np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
    "depth": np.array([[0.5, np.inf]], np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "scalar": np.array(7, np.int32),
    "caption": "a grün sphere",
    "metadata": {"brightness": 0.25, "num_objects": 3},
    "det": {"boxes": np.zeros((1, 4), np.float32), "classes": ["red cube"]},
}


def test_a_record_comes_back_as_it_was():
    decoded = records.decode(records.encode(RECORD))

    assert decoded.keys() == RECORD.keys()
    for name in ("ids", "pixels", "depth", "empty", "scalar"):
        assert decoded[name].dtype == RECORD[name].dtype
        np.testing.assert_array_equal(decoded[name], RECORD[name])
    assert decoded["caption"] == "a grün sphere"
    assert decoded["metadata"] == {"brightness": 0.25, "num_objects": 3}
    assert decoded["det"]["classes"] == ["red cube"]
    np.testing.assert_array_equal(decoded["det"]["boxes"], np.zeros((1, 4)))


@pytest.mark.parametrize("dtype", sorted(records.DTYPES))
def test_every_allowed_dtype_comes_back(dtype):
    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    array = np.array([[0, 1, 1]]).astype(dtype)

    decoded = records.decode(records.encode({"a": array}))["a"]

    assert decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded, array)


def test_equal_records_have_equal_bytes_whatever_their_memory_layout():
    ids = np.arange(6, dtype=np.int32).reshape(2, 3)

    assert records.encode({"a": ids}) == records.encode({"a": np.asfortranarray(ids)})
    big_endian = records.decode(records.encode({"a": ids.astype(">i4")}))["a"]
    np.testing.assert_array_equal(big_endian, ids)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "at least one field"),
        ({"a/b": np.zeros(1)}, "'a/b'"),
        ({"a:json": np.zeros(1)}, "'a:json'"),
        ({"outer": {"": np.zeros(1)}}, "outer"),
        ({"a": np.array(["text"], object)}, "'a': dtype object"),
        ({"a": np.zeros(1, np.complex64)}, "complex64"),
        ({"det": {"classes": {1, 2}}}, "'det'.*set"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(record, message):
    with pytest.raises(ValueError, match=message):
        records.encode(record)


def test_oversized_records_are_refused_in_both_directions(monkeypatch):
    data = records.encode({"large": np.zeros(1000, np.uint8)})
    monkeypatch.setattr(records, "MAX_BYTES", 100)

    with pytest.raises(ValueError, match=r"1000 bytes.*'large'.*100"):
        records.encode({"large": np.zeros(1000, np.uint8)})
    with pytest.raises(ValueError, match="allowed: 100"):
        records.decode(data)


@pytest.mark.parametrize("cut", [0, 4, 40, -1])
def test_cut_bytes_are_not_a_record(cut):
    with pytest.raises(ValueError, match="not a record"):
        records.decode(records.encode(RECORD)[:cut])


def test_a_pickle_is_not_a_record():
    with pytest.raises(ValueError, match="not a record"):
        records.decode(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00" + b"." * 64)


def test_broken_json_and_clashing_paths_are_errors():
    broken = safetensors.numpy.save({"a:json": np.frombuffer(b"{", np.uint8)})
    clash = safetensors.numpy.save({"a": np.zeros(1), "a/b": np.zeros(1)})

    with pytest.raises(ValueError, match="'a' is not valid JSON"):
        records.decode(broken)
    with pytest.raises(ValueError, match=r"'a(/b)?'"):
        records.decode(clash)


def header(text):
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    "data",
    [
        header("[]"),
        header("{}") + b"x",
        header('{"a": 1}'),
        header('{"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 9]}}') + b"123456789",
        header('{"a": {"dtype": "U8", "shape": [-1, -2], "data_offsets": [0, 2]}}') + b"12",
        header('{"a": {"dtype": "U8", "shape": [true], "data_offsets": [0, 1]}}') + b"1",
        header('{"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}') + b"12345678",
        header('{"a": {"dtype": "U8", "shape": [0, 1e99], "data_offsets": [0, 0]}}'),
        header(
            '{"a": {"dtype": "U8", "shape": [0, 99999999999999999999], "data_offsets": [0, 0]}}'
        ),
        header('{"a": {"dtype": "U8", "shape": [9], "data_offsets": [-9, 0]}}') + b"123456789",
        header("[" * 10_000),
        (2**63).to_bytes(8, "little") + b"{}",
    ],
)
def test_a_hostile_header_is_not_a_record(data):
    with pytest.raises(ValueError, match=r"not a record \(\d+ bytes\): "):
        records.decode(data)


def test_no_changed_byte_ends_in_anything_but_a_record_or_a_clear_error():
    data, rng = records.encode(RECORD), np.random.default_rng(0)
    for position in rng.integers(0, len(data), 2_000):
        changed = bytearray(data)
        changed[position] = rng.integers(256)
        try:
            records.decode(bytes(changed))
        except ValueError as error:
            assert "not a record" in str(error) or "field" in str(error)


def test_nobody_can_write_to_arrays_of_a_record():
    data = records.encode({"a": np.arange(4), "nothing": np.zeros((0, 3))})
    decoded = records.decode(data)

    assert decoded["nothing"].shape == (0, 3)
    np.testing.assert_array_equal(decoded["a"], [0, 1, 2, 3])
    with pytest.raises(ValueError, match="read-only"):
        decoded["a"][0] = 1
