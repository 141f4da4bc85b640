"""One file of a published data set -> its value, by extension; hostile files are refused unread.

Nothing is ever unpickled, and no file may grow beyond a stated size when it is unpacked.
"""

import gzip
import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy.lib import format as npy_format
from PIL import Image

from fourm_jax.data.storage.left_out import RecordError
from fourm_jax.utils import errors

MAX_BYTES = 256 * 2**20  # of a file, packed or unpacked
MAX_JSON_BYTES = 16 * 2**20  # unpacked: what JSON describes can take 30 times as much memory
MAX_PIXELS = 64 * 2**20  # of a picture
PICTURE_FORMATS = ("PNG", "JPEG", "JPEG2000")


def decode(extension: str, data: bytes) -> Any:
    """Return the value of a file.

    Args:
      extension: lower case, with its dots, e.g. ".json.gz"; one of `TYPES`.

    Returns:
      Arrays (.npy), {name: array} (.npz), JSON values (never NaN), text, or pictures as uint8
      [h, w, 3], or [h, w] where they are grey or hold palette indices.

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
    except RecordError as error:
        raise RecordError(error.reason, f"{what}: {error}") from error
    except Exception as error:  # decoders of damaged files raise whatever their library does
        raise RecordError(TYPES[extension].reason, f"{what}: {error}") from error


def is_picture(extension: str) -> bool:
    """Whether files of this extension hold a picture."""
    return extension in TYPES and TYPES[extension].decode is _picture


def picture_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a picture file, from its header alone.

    Raises:
      RecordError: no picture, or one of more than `MAX_PIXELS` pixels.
    """
    try:
        with _open_picture(data) as image:
            return image.height, image.width
    except RecordError:
        raise
    except Exception as error:
        message = f"no readable picture in {len(data)} bytes: {error}"
        raise RecordError("unreadable_picture", message) from error


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
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        entries = file.infolist()
        _check_size(sum(entry.file_size for entry in entries), MAX_BYTES)
        return {entry.filename.removesuffix(".npy"): _array(file.read(entry)) for entry in entries}


def _json(data: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON value")

    _check_size(len(data), MAX_JSON_BYTES)
    return json.loads(data, parse_constant=refuse)


def _zipped_json(data: bytes) -> Any:
    with gzip.open(io.BytesIO(data)) as file:
        return _json(file.read(MAX_JSON_BYTES + 1))


def _text(data: bytes) -> str:
    return data.decode().strip()


def _picture(data: bytes) -> UInt8[np.ndarray, "h w *c"]:
    with _open_picture(data) as image:
        if image.mode in ("L", "P", "I;16"):
            return np.asarray(image)
        return np.asarray(image.convert("RGB"))


def _open_picture(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=PICTURE_FORMATS)
    if image.width * image.height > MAX_PIXELS:
        message = f"picture of {image.size} pixels, allowed: {MAX_PIXELS} in total"
        raise RecordError("too_large", message)
    return image


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise RecordError("too_large", f"unpacks to more than {limit} bytes")


class _Type(NamedTuple):
    decode: Callable[[bytes], Any]
    reason: str  # of a file that is damaged


TYPES: Mapping[str, _Type] = {
    ".npy": _Type(_array, "unreadable_array"),
    ".npz": _Type(_arrays, "unreadable_array"),
    ".json": _Type(_json, "malformed_json"),
    ".json.gz": _Type(_zipped_json, "malformed_json"),
    ".txt": _Type(_text, "unreadable_text"),
    ".jpg": _Type(_picture, "unreadable_picture"),
    ".jpeg": _Type(_picture, "unreadable_picture"),
    ".jpx": _Type(_picture, "unreadable_picture"),
    ".png": _Type(_picture, "unreadable_picture"),
}
