"""Event files of TensorBoard, written without TensorFlow: scalars, texts, pictures, histograms.

A file is a chain of records, each one protocol buffer `Event` between its length and checksums
(TFRecord). The few messages are put together by hand; numbers of fields are those of
tensorflow/core/util/event.proto and tensorflow/core/framework/{summary,tensor,tensor_shape}.proto,
of histograms tensorflow/core/framework/histogram.proto.
"""

import io as memory
import os
import socket
import struct
import time
from collections.abc import Mapping

import numpy as np
from etils import epath
from jaxtyping import Float, UInt8
from PIL import Image

from fourm_jax.utils import io

_POLYNOMIAL = 0x82F63B78  # of CRC-32C, reflected
_MASK = 0xA282EAD8
_STRING = 7  # DT_STRING of tensorflow/core/framework/types.proto


class EventWriter:
    """Appends events to a new file in a folder; TensorBoard shows all files of it as one run."""

    def __init__(self, folder: epath.PathLike) -> None:
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._path, self._waiting = folder / name, bytearray()
        self._write(_text(3, "brain.Event:2"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of a step."""
        parts = [_text(1, name) + _float(2, value) for name, value in values.items()]
        self._summary(step, parts)

    def text(self, step: int, name: str, value: str) -> None:
        """Write a text, which is shown as Markdown."""
        plugin = _message(1, _text(1, "text"))  # SummaryMetadata.plugin_data.plugin_name
        shape = _message(2, _message(2, _integer(1, 1)))  # TensorProto.tensor_shape: [1]
        tensor = _integer(1, _STRING) + shape + _text(8, value)
        self._summary(step, [_text(1, name) + _message(8, tensor) + _message(9, plugin)])

    def picture(self, step: int, name: str, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        """Write a picture."""
        encoded = memory.BytesIO()
        Image.fromarray(np.ascontiguousarray(rgb)).save(encoded, format="PNG")
        sizes = [_integer(number, size) for number, size in enumerate(rgb.shape, start=1)]
        image = b"".join([*sizes, _message(4, encoded.getvalue())])
        self._summary(step, [_text(1, name) + _message(4, image)])

    def histogram(self, step: int, name: str, values: Float[np.ndarray, "..."]) -> None:
        """Write how finite numbers are distributed, in 50 steps from smallest to largest."""
        flat = np.asarray(values, np.float64).ravel()
        counts, edges = np.histogram(flat, bins=50)
        numbers = (flat.min(), flat.max(), flat.size, flat.sum(), np.square(flat).sum())
        parts = [_double(number, value) for number, value in enumerate(numbers, start=1)]
        parts += [_message(6, _doubles(edges[1:])), _message(7, _doubles(counts))]
        self._summary(step, [_text(1, name) + _message(5, b"".join(parts))])

    def flush(self) -> None:
        """Make what was written visible."""
        io.append(self._path, bytes(self._waiting))
        self._waiting.clear()

    def close(self) -> None:
        """Write what is left."""
        self.flush()

    def _summary(self, step: int, values: list[bytes]) -> None:
        summary = b"".join(_message(1, value) for value in values)
        self._write(_integer(2, step) + _message(5, summary))

    def _write(self, event: bytes) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + event  # field 1: seconds, a double
        length = struct.pack("<Q", len(event))
        self._waiting += length + _checksum(length) + event + _checksum(event)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _doubles(values: np.ndarray) -> bytes:
    return np.asarray(values, "<f8").tobytes()


def _varint(value: int) -> bytes:
    groups = []
    while value >= 128:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _make_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _make_table()


def crc32c(content: bytes) -> int:
    """CRC-32C (Castagnoli), e.g. 0xE3069283 of b"123456789"."""
    value = 0xFFFFFFFF
    for byte in content:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF


def _checksum(content: bytes) -> bytes:
    """The checksum as TFRecord masks it: rotated right by 15 bits, plus a constant."""
    value = crc32c(content)
    return struct.pack("<I", ((value >> 15 | value << 17) + _MASK) & 0xFFFFFFFF)
