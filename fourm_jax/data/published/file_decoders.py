"""One file of a published data set -> its value, by extension; hostile files are refused unread.

Nothing is ever unpickled, and no file may grow beyond a stated size when it is unpacked.
"""

import gzip
import io
import math
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from fourm_jax.data.storage.left_out import RecordError
from fourm_jax.utils import errors, picture_files
from fourm_jax.utils import io as files

MAX_BYTES = 256 * 2**20  # of a file, packed or unpacked
MAX_JSON_BYTES = files.MAX_JSON_BYTES  # unpacked
MAX_ARRAYS = 1000  # in one .npz
_ZIP_END = 22  # bytes of the end record of a zip file, which numpy leaves without a comment


def decode(extension: str, data: bytes) -> Any:
    """Return the value of a file.

    Args:
      extension: lower case, with its dots, e.g. ".json.gz"; one of `TYPES`.

    Returns:
      Arrays (.npy), {name: array} (.npz), JSON values (never NaN), text, or what
      `picture_files.decode_values` makes of a picture.

    Raises:
      RecordError: an extension without decoder, or a file that is damaged, needs pickle, or is too
        large when unpacked.
    """
    if extension not in TYPES:
        message = errors.unknown_value("file type", extension, TYPES)
        raise RecordError("unknown_file_type", message)
    what = f"unreadable {extension} file of {len(data)} bytes"
    try:
        return TYPES[extension].decode(data)
    except (RecordError, picture_files.PictureError) as error:
        raise RecordError(error.reason, f"{what}: {error}") from error
    except Exception as error:  # decoders of damaged files raise whatever their library does
        raise RecordError(TYPES[extension].reason, f"{what}: {error}") from error


def is_picture(extension: str) -> bool:
    """Whether files of this extension hold a picture."""
    return extension in picture_files.SUFFIXES


def _array(data: bytes) -> np.ndarray:
    file = io.BytesIO(data)
    version = npy_format.read_magic(file)
    if version not in _NPY_HEADERS:
        raise ValueError(f".npy version {version}, allowed: {sorted(_NPY_HEADERS)}")
    shape, _, dtype = _NPY_HEADERS[version](file)
    if dtype.hasobject:
        raise RecordError("needs_pickle", f"dtype {dtype} needs pickle (allow_pickle is never set)")
    size = math.prod(shape) * dtype.itemsize
    # Checked before numpy reserves memory for what the header claims.
    if min(shape, default=0) < 0 or size != len(data) - file.tell():
        found = len(data) - file.tell()
        raise ValueError(f"{dtype} array of shape {shape} needs {size} bytes, found {found}")
    return np.load(io.BytesIO(data), allow_pickle=False)


_NPY_HEADERS = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    """Arrays of a zip file. What it claims about sizes may be wrong, so that nothing relies on it:
    entries are unpacked up to a limit, which Python can do for no other method than deflate."""
    _check_directory(data)
    arrays, left = {}, MAX_BYTES
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        # zipfile itself looks for the last archive in a file and takes that.
        starts = [entry.header_offset for entry in file.infolist()]
        if data[-_ZIP_END:].find(b"PK\5\6") != 0 or (starts and min(starts)):
            raise ValueError("other bytes stand before or after the archive")
        for entry in file.infolist():
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{entry.filename!r} is packed by another method than deflate")
            with file.open(entry) as packed:
                content = packed.read(left + 1)
            _check_size(len(content), left)
            left -= len(content)
            arrays[entry.filename.removesuffix(".npy")] = _array(content)
    return arrays


def _check_directory(data: bytes) -> None:
    """Check how many entries follow from the sizes at the end of a zip file, which come first."""
    end = data.rfind(b"PK\5\6")
    if end < 0 or data[max(end - 20, 0) : end].startswith(b"PK\6\7"):
        raise ValueError("no directory of a zip file, or that of one of more than 4 GB")
    size = int.from_bytes(data[end + 12 : end + 16], "little")
    if size > MAX_ARRAYS * 300:  # bytes of an entry; numpy writes about 60
        raise ValueError(f"directory of {size} bytes, allowed: {MAX_ARRAYS * 300}")


def _json(data: bytes) -> Any:
    _check_size(len(data), MAX_JSON_BYTES)
    return files.parse_json(data, "it", allow_nan=False)


def _zipped_json(data: bytes) -> Any:
    with gzip.open(io.BytesIO(data)) as file:
        return _json(file.read(MAX_JSON_BYTES + 1))


def _text(data: bytes) -> str:
    return data.decode().strip()


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise RecordError("too_large", f"unpacks to more than {limit} bytes")


def _picture(data: bytes) -> np.ndarray:
    return picture_files.decode_values(data, upright=False)


class _Type(NamedTuple):
    decode: Callable[[bytes], Any]
    reason: str  # of a file that is damaged


TYPES: Mapping[str, _Type] = {
    ".npy": _Type(_array, "unreadable_array"),
    ".npz": _Type(_arrays, "unreadable_array"),
    ".json": _Type(_json, "malformed_json"),
    ".json.gz": _Type(_zipped_json, "malformed_json"),
    ".txt": _Type(_text, "unreadable_text"),
    **dict.fromkeys(picture_files.SUFFIXES, _Type(_picture, "unreadable_picture")),
}
