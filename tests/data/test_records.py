"""Records survive the trip to bytes and back; anything else is refused by name."""

import numpy as np
import pytest
import safetensors.numpy

from fourm_jax.data import records

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

    with pytest.raises(ValueError, match="'a' holds broken JSON"):
        records.decode(broken)
    with pytest.raises(ValueError, match=r"'a(/b)?'"):
        records.decode(clash)
