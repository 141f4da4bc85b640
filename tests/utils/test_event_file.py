"""Event files of TensorBoard, byte by byte."""

import struct

import pytest

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
