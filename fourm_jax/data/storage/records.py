"""One record (a dict of arrays and JSON values) <-> bytes, without pickle and with strict checks.

The bytes are a safetensors file: arrays are stored as they are, nested dicts under "outer/inner",
and every other value (text, lists of text, numbers) as JSON in a uint8 array named "<path>:json".
Arrays of a decoded record are views of its bytes, which live as long as any of them.
"""

import json
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import numpy as safetensors_numpy

from fourm_jax.utils import io, safetensors_header

Record = dict[str, Any]  # values: np.ndarray, nested Record, or anything that JSON can hold

# By their names in the file; safetensors' own table for numpy lacks bfloat16.
_DTYPES = {
    "BOOL": np.dtype(bool),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}
DTYPES = frozenset(dtype.name for dtype in _DTYPES.values())
MAX_HEADER_BYTES = 2**20
MAX_NESTING = 32  # of dicts in a record
MAX_BYTES = 64 * 2**20  # of one record; a 448 px record with every raw signal has about 6 MB
_JSON = ":json"
_PATH = "/"


def encode(record: Record) -> bytes:
    """Return the bytes of one record; equal records give equal bytes.

    Raises:
      ValueError: a field name that is empty or holds "/" or ":", a dtype outside `DTYPES`, a value
        that JSON cannot hold, or more than `MAX_BYTES`; names the field.
    """
    arrays: dict[str, np.ndarray] = {}
    _flatten(record, "", arrays)
    if not arrays:
        raise ValueError("a record needs at least one field, got none")
    size = sum(array.nbytes for array in arrays.values())
    if size > MAX_BYTES:
        largest = max(arrays, key=lambda name: arrays[name].nbytes)
        raise ValueError(
            f"record of {size} bytes (largest field {largest!r}), allowed: {MAX_BYTES}"
        )
    return safetensors_numpy.save(arrays)


def decode(data: bytes) -> Record:
    """Return the record behind `data`; its arrays are read-only.

    Raises:
      ValueError: not a record, cut short, too large, or a dtype that is not allowed.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"record of {len(data)} bytes, allowed: {MAX_BYTES}")
    try:
        arrays = _arrays(data)
    except Exception as error:  # a hostile header can go wrong in any way
        raise ValueError(f"not a record ({len(data)} bytes): {error}") from error
    record: Record = {}
    for path, array in arrays.items():
        value = array
        if path.endswith(_JSON):
            path = path.removesuffix(_JSON)
            value = io.parse_json(array.tobytes(), f"field {path!r}")
        if _PATH in path or path in record:
            _put(record, path, value)
        else:
            record[path] = value
    return record


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    """Views of `data`: the library would copy every tensor. Refuses whatever the library does."""
    start = safetensors_header.LENGTH_BYTES + int.from_bytes(
        data[: safetensors_header.LENGTH_BYTES], "little"
    )
    if start > MAX_HEADER_BYTES:
        raise ValueError(f"header of {start} bytes, allowed: {MAX_HEADER_BYTES}")
    header = io.parse_json(data[safetensors_header.LENGTH_BYTES : start], "header")
    header.pop("__metadata__", None)
    arrays, end = {}, start
    for path, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        shape, (first, last) = entry["shape"], entry["data_offsets"]
        types = {*map(type, shape), type(first), type(last)}
        if types != {int} or len(path) > safetensors_header.MAX_NAME:
            raise ValueError(f"tensor {path[:80]!r} of shape {shape} at {first}:{last}")
        array = np.ndarray(shape, _DTYPES[entry["dtype"]], data, start + first)
        if start + first != end or last - first != array.nbytes:
            raise ValueError(f"tensor {path!r} of {array.nbytes} bytes lies at {first}:{last}")
        arrays[path] = array
        end += array.nbytes
    if end != len(data):
        raise ValueError(f"its tensors end at {end}")
    return arrays


def _flatten(record: Mapping, prefix: str, arrays: dict[str, np.ndarray]) -> None:
    for name, value in record.items():
        if not isinstance(name, str) or not name or _PATH in name or ":" in name:
            raise ValueError(
                f"field name {name!r} in {prefix or 'record'!r}: need text without '/', ':'"
            )
        path = prefix + name
        if isinstance(value, np.ndarray):
            if value.dtype.name not in DTYPES:
                raise ValueError(
                    f"field {path!r}: dtype {value.dtype.name}, allowed: {sorted(DTYPES)}"
                )
            # ascontiguousarray also turns byte order to native, which is what safetensors stores.
            arrays[path] = np.ascontiguousarray(value).reshape(value.shape)
        elif isinstance(value, Mapping) and _holds_array(value):
            _flatten(value, f"{path}{_PATH}", arrays)
        else:
            arrays[path + _JSON] = _dump_json(path, value)


def _holds_array(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_array(item) for item in value.values())
    return isinstance(value, np.ndarray)


def _dump_json(path: str, value: Any) -> np.ndarray:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain_number)
        io.check_depth(value)
        data = text.encode()
        if len(data) > io.MAX_JSON_BYTES:
            raise ValueError(f"JSON of {len(data)} bytes, allowed: {io.MAX_JSON_BYTES}")
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"field {path!r}: {error}; allowed: arrays, dicts, and JSON values"
        ) from error


def _plain_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"value of type {type(value).__name__}")


def _put(record: Record, path: str, value: Any) -> None:
    *outer, last = path.split(_PATH, MAX_NESTING)
    if _PATH in last:
        raise ValueError(f"field {path[:80]!r} lies more than {MAX_NESTING} dicts deep")
    for name in outer:
        record = record.setdefault(name, {})
        if not isinstance(record, dict):
            raise ValueError(f"field {path!r} lies inside {name!r}, which is not a dict")
    if last in record:
        raise ValueError(f"field {path!r} is there twice")
    record[last] = value
