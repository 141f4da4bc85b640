"""Files from strangers are checked before they are read."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from fourm_jax.convert import safetensors_io


def raw(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_what_is_written_is_read_by_us_and_by_the_original_library(tmp_path):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(2).astype(ml_dtypes.bfloat16),
        "empty": np.zeros((0, 3), np.int64),
    }
    path = tmp_path / "x.safetensors"
    announced = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    safetensors_io.write(path, announced, reversed(arrays.items()), {"dim": "3"})
    file = safetensors_io.SafeFile(path)
    assert file.metadata == {"dim": "3"}
    assert file.names == ("a", "b", "empty")
    for name, array in arrays.items():
        np.testing.assert_array_equal(file.read(name), array)
        np.testing.assert_array_equal(load_file(path)[name], array)


def test_a_write_that_fails_leaves_no_file(tmp_path):
    announced = {"a": (np.dtype(np.float32), (2,))}
    with pytest.raises(ValueError, match=r"'b' float32.* was not announced"):
        safetensors_io.write(tmp_path / "x", announced, [("b", np.zeros(2, np.float32))])
    with pytest.raises(ValueError, match="\\['a'\\] were announced but never came"):
        safetensors_io.write(tmp_path / "x", announced, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry()}, b"1234", "file not fully covered"),
        ({"a": entry()}, b"123456789", "file not fully covered"),
        ({"a": entry("F31")}, b"12345678", "F31"),
        ({"a": entry("F8_E4M3", (8,))}, b"12345678", "'a': dtype 'F8_E4M3', allowed"),
        ({"a": entry(shape=(3,))}, b"12345678", "invalid shape"),
        ({"a": entry(shape=(-2,))}, b"12345678", "-2"),
        ({"a": {"dtype": "F32"}}, b"", "missing field `shape`"),
        ({"a": entry(), "b": entry()}, b"12345678", "invalid offset for tensor `[ab]`"),
        ({"a": entry(offsets=(4, 12))}, b"123456789012", "invalid offset for tensor `a`"),
        ({"__metadata__": {"a": 1}}, b"", "expected a string"),
        (b"[1, 2]", b"", "expected a JSON object"),
        (b"{oops", b"", "not valid JSON"),
    ],
)
def test_broken_files_are_refused_with_the_reason(tmp_path, header, data, message):
    with pytest.raises(ValueError, match=f"x.safetensors: .*{message}"):
        safetensors_io.SafeFile(raw(tmp_path / "x.safetensors", header, data))


@pytest.mark.parametrize("start", [b"\x80\x02ccollections", b"PK\x03\x04archive/data.pkl"])
def test_pickles_are_refused_unread(tmp_path, start):
    path = tmp_path / "model.safetensors"
    path.write_bytes(start)
    with pytest.raises(ValueError, match="this is a pickle"):
        safetensors_io.SafeFile(path)


@pytest.mark.parametrize("content", [b"", b"short", (10**12).to_bytes(8, "little") + b"{}"])
def test_files_without_a_whole_header_are_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"no sound safetensors file: .*header too"):
        safetensors_io.SafeFile(path)


def test_metadata_is_parsed_safely():
    parsed = safetensors_io.parse_metadata({"a": "None", "b": "['x', 'y']", "c": "4", "d": "True"})
    assert parsed == {"a": None, "b": ["x", "y"], "c": 4, "d": True}
    with pytest.raises(ValueError, match="'a' has 10001 characters"):
        safetensors_io.parse_metadata({"a": "x" * 10_001})
    with pytest.raises(ValueError, match="'a' cannot be parsed"):
        safetensors_io.parse_metadata({"a": "!!python/object/apply:os.system ['true']"})


@pytest.mark.parametrize("length", [128, 128 + 2 * 256])
def test_a_header_whose_length_looks_like_the_start_of_a_pickle_is_read(tmp_path, length):
    """128 is written b"\\x80", as pickles begin: one file of 256 has such a length."""
    text = json.dumps({"__metadata__": {"a": "b"}}).encode()
    path = raw(tmp_path / "x.safetensors", text.ljust(length))
    assert path.read_bytes()[:1] == b"\x80"
    assert safetensors_io.SafeFile(path).metadata == {"a": "b"}


def write_parts(folder, weight_map):
    for number in (1, 2):
        array = np.full(2, number, np.float32)
        announced = {f"t{number}": (array.dtype, array.shape)}
        path = folder / f"model-{number}-of-2.safetensors"
        safetensors_io.write(path, announced, [(f"t{number}", array)])
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 16}, "weight_map": weight_map}))
    return index


WEIGHT_MAP = {"t1": "model-1-of-2.safetensors", "t2": "model-2-of-2.safetensors"}


def test_weights_in_several_files_are_read_through_their_index(tmp_path):
    file = safetensors_io.open_weights(write_parts(tmp_path, WEIGHT_MAP))
    assert {name: file.read(name).tolist() for name in file.names} == {"t1": [1, 1], "t2": [2, 2]}
    assert file.tensors["t2"].shape == (2,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t2": "model-1-of-2.safetensors"}, r"does not list what its parts hold.*'t2'"),
        ({"t3": "model-2-of-2.safetensors"}, r"does not list what its parts hold.*'t3'"),
        ({"t2": "../model-2-of-2.safetensors"}, "a .safetensors file beside it"),
        ({"t2": 2}, "a .safetensors file beside it"),
    ],
)
def test_an_index_that_does_not_fit_its_parts_is_refused(tmp_path, changes, message):
    index = write_parts(tmp_path, {**WEIGHT_MAP, **changes})
    with pytest.raises(ValueError, match=message):
        safetensors_io.open_weights(index)


def test_a_missing_part_is_named(tmp_path):
    index = write_parts(tmp_path, WEIGHT_MAP)
    (tmp_path / "model-2-of-2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-2-of-2"):
        safetensors_io.open_weights(index)
