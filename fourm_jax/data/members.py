"""One file of a published data set -> its value, by extension; hostile files are refused unread.

Nothing is ever unpickled, and no file may grow beyond a stated size when it is unpacked.
"""

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fourm_jax.modalities import registry

MAX_BYTES = 256 * 2**20  # of an unpacked file
MAX_PIXELS = 64 * 2**20  # of a picture


def decode(extension: str, data: bytes) -> Any:
    """Return the value of a file.

    Args:
      extension: lower case, with its dots, e.g. ".json.gz"; one of `DECODERS`.

    Returns:
      Arrays (.npy), {name: array} (.npz), JSON values, text, or pictures as uint8 [h, w, 3], or
      [h, w] where they are grey or hold palette indices.

    Raises:
      ValueError: an extension without decoder, or a file that is damaged, needs pickle, or is too
        large when unpacked.
    """
    if extension not in DECODERS:
        raise ValueError(registry.unknown_value("file type", extension, DECODERS))
    try:
        return DECODERS[extension](data)
    except Exception as error:  # decoders of damaged files raise whatever their library does
        raise ValueError(f"unreadable {extension} file of {len(data)} bytes: {error}") from error


def _array(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        _check_size(sum(member.file_size for member in file.infolist()))
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _json(data: bytes) -> Any:
    return json.loads(data)


def _zipped_json(data: bytes) -> Any:
    with gzip.open(io.BytesIO(data)) as file:
        text = file.read(MAX_BYTES + 1)
    _check_size(len(text))
    return json.loads(text)


def _text(data: bytes) -> str:
    return data.decode().strip()


def _picture(data: bytes) -> UInt8[np.ndarray, "h w *c"]:
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "JPEG2000")) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"picture of {image.size} pixels, allowed: {MAX_PIXELS} in total")
        if image.mode in ("L", "P", "I;16"):
            return np.asarray(image)
        return np.asarray(image.convert("RGB"))


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"unpacks to more than {MAX_BYTES} bytes")


DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    ".npy": _array,
    ".npz": _arrays,
    ".json": _json,
    ".json.gz": _zipped_json,
    ".txt": _text,
    ".jpg": _picture,
    ".jpeg": _picture,
    ".jpx": _picture,
    ".png": _picture,
}
