"""Event files of TensorBoard, byte by byte."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from fourm_jax.utils import event_file


def records(folder):
    """Contents of the records of the one file in a folder; checks lengths and checksums."""
    (path,) = folder.iterdir()
    rest, found = path.read_bytes(), []
    while rest:
        (length,) = struct.unpack("<Q", rest[:8])
        assert rest[8:12] == event_file._checksum(rest[:8])
        content, rest = rest[12 : 12 + length], rest[12 + length :]
        assert rest[:4] == event_file._checksum(content)
        found.append(content[9:])  # after the time
        rest = rest[4:]
    return found


@pytest.mark.parametrize(
    ("content", "value"), [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA)]
)
def test_checksums_are_those_of_rfc_3720(content, value):
    assert event_file.crc32c(content) == value


def test_a_file_starts_with_its_version_and_holds_scalars_by_step(tmp_path):
    writer = event_file.EventWriter(tmp_path)
    writer.scalars(300, {"loss": 1.5})
    writer.close()
    version, event = records(tmp_path)
    assert version == b"\x1a\x0dbrain.Event:2"
    value = b"\x0a\x04loss" + b"\x15\x00\x00\xc0\x3f"  # tag, simple_value 1.5
    assert event == b"\x10\xac\x02" + b"\x2a\x0d" + b"\x0a\x0b" + value  # step 300, summary


def test_a_text_is_a_tensor_of_one_string_for_the_plugin_of_texts(tmp_path):
    writer = event_file.EventWriter(tmp_path)
    writer.text(0, "config", "x")
    writer.close()
    assert records(tmp_path)[1] == (
        b"\x10\x00\x2a\x21\x0a\x1f"
        b"\x0a\x06config"
        b"\x42\x0b\x08\x07\x12\x04\x12\x02\x08\x01\x42\x01x"  # DT_STRING, shape [1], "x"
        b"\x4a\x08\x0a\x06\x0a\x04text"
    )


def test_a_picture_is_a_png_with_its_size(tmp_path):
    writer = event_file.EventWriter(tmp_path)
    rgb = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    writer.picture(1, "p", rgb)
    writer.close()
    head, png = records(tmp_path)[1].split(b"\x89PNG")
    assert b"\x0a\x01p" + b"\x22" in head  # tag, image
    assert b"\x08\x01\x10\x02\x18\x03\x22" in head  # height 1, width 2, 3 channels
    found = Image.open(io.BytesIO(b"\x89PNG" + png))
    np.testing.assert_array_equal(np.asarray(found), rgb)


def test_a_histogram_counts_between_the_smallest_and_the_largest(tmp_path):
    writer = event_file.EventWriter(tmp_path)
    writer.histogram(1, "h", np.array([0.0, 0.5, 50.0], np.float32))
    writer.close()
    event = records(tmp_path)[1]
    numbers = [(0x09, 0.0), (0x11, 50.0), (0x19, 3.0), (0x21, 50.5), (0x29, 2500.25)]
    expected = b"".join(bytes([key]) + struct.pack("<d", value) for key, value in numbers)
    assert b"\x0a\x01h\x2a" in event and expected in event
    limits = struct.pack("<50d", *range(1, 51))
    counts = struct.pack("<50d", 2, *[0] * 48, 1)
    assert event.endswith(b"\x32\x90\x03" + limits + b"\x3a\x90\x03" + counts)
