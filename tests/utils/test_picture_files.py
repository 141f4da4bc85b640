"""A picture file means the same at every door, whatever its mode, depth and metadata."""

import io
import os
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from fourm_jax.data import collate, picture_folder
from fourm_jax.data.sources import tfds_fields
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import picture_files

RAMP = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)


def file_of(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decode_folder(data, tmp_path):
    (tmp_path / "a.png").write_bytes(data)
    return picture_folder.read(tmp_path / "a.png", 2)[0]


def decode_record(data, tmp_path):
    spec = ModalitySpec(name="rgb", kind="pixels", grid=(1, 1), patch_size=2, num_channels=3)
    record = {"rgb": np.frombuffer(data, np.uint8)}
    return collate.collate([record], [{"rgb": "rgb"}], [0], [spec])["rgb"]["pixels"][0]


def decode_tfds(data, tmp_path):
    return tfds_fields.READERS["picture"](tfds_fields.tfds.features.Image())(data)


DOORS = [decode_folder, decode_record, decode_tfds]
PICTURES = {
    "16-bit grey": (Image.fromarray(RAMP), [[0, 100], [200, 255]]),
    "32-bit grey": (Image.fromarray(RAMP.astype(np.int32)), [[0, 100], [200, 255]]),
    "grey": (Image.fromarray(np.uint8([[0, 100], [200, 255]])), [[0, 100], [200, 255]]),
    "1 bit": (Image.fromarray(np.array([[False, True], [True, False]])), [[0, 255], [255, 0]]),
    "grey and alpha": (
        Image.fromarray(np.uint8([[[9, 0], [9, 255]], [[0, 255], [0, 0]]])),
        [[255, 9], [0, 255]],
    ),
    "clear": (Image.new("RGBA", (2, 2), (0, 0, 0, 0)), [[255, 255], [255, 255]]),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", PICTURES)
def test_every_mode_means_the_same_at_every_door(tmp_path, door, name):
    image, expected = PICTURES[name]

    found = door(file_of(image, "TIFF" if name == "32-bit grey" else "PNG"), tmp_path)

    np.testing.assert_array_equal(found, np.repeat(np.uint8(expected)[..., None], 3, axis=-1))


@pytest.mark.parametrize(
    ("door", "expected"),
    [
        (decode_folder, [[3, 1], [4, 2]]),
        (decode_record, [[1, 2], [3, 4]]),
        (decode_tfds, [[1, 2], [3, 4]]),
    ],
)
def test_only_a_picture_that_comes_alone_is_turned_as_its_camera_says(tmp_path, door, expected):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image = Image.fromarray(np.uint8([[1, 2], [3, 4]]))

    found = door(file_of(image, exif=exif), tmp_path)

    assert found[..., 0].tolist() == expected


def test_cmyk_and_palettes_keep_their_colours():
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    for image, kind in ((red.convert("CMYK"), "TIFF"), (red.quantize(4), "PNG")):
        found = picture_files.decode_rgb(file_of(image, kind))
        assert (found == [255, 0, 0]).all()


def test_stored_values_keep_their_bits():
    assert picture_files.decode_values(file_of(Image.fromarray(RAMP))).tolist() == RAMP.tolist()
    labels = Image.fromarray(np.uint8([[0, 3], [133, 255]]))
    assert picture_files.decode_values(file_of(labels)).tolist() == [[0, 3], [133, 255]]
    palette = labels.copy()
    palette.putpalette(bytes(768))
    assert picture_files.decode_values(file_of(palette)).tolist() == [[0, 3], [133, 255]]
    colours = Image.new("RGB", (2, 2), (1, 2, 3))
    assert picture_files.decode_values(file_of(colours)).shape == (2, 2, 3)


def exif_of(kind, count, value):
    entry = struct.pack("<HHII", 0x0112, kind, count, value)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + b"\0\0\0\0"


DAMAGED = {
    "blank": b"Exif\0\0",
    "doubled": b"Exif\0\0Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0",
    "garbage": b"Exif\0\0no tiff here at all",
    "far": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "text": exif_of(2, 2, 0x36),
    "99": exif_of(3, 1, 99),
    "none": exif_of(3, 0, 0),
    "many": exif_of(3, 0x7FFFFFFF, 8),
    "fraction": exif_of(5, 1, 8),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", DAMAGED)
def test_good_pixels_beside_damaged_camera_data_are_taken(kind, name):
    data = file_of(Image.new("RGB", (6, 4), (200, 30, 30)), kind, exif=DAMAGED[name])

    assert picture_files.decode_rgb(data).shape == (4, 6, 3)
    assert picture_files.read_size(data) == (4, 6)


def test_sizes_are_those_of_the_decoded_picture():
    exif = Image.Exif()
    exif[0x0112] = 8
    for kind in ("JPEG", "PNG", "WEBP"):
        data = file_of(Image.new("RGB", (6, 4)), kind, exif=exif)
        for upright, size in ((True, (6, 4)), (False, (4, 6))):
            assert picture_files.read_size(data, upright=upright) == size
            assert picture_files.decode_rgb(data, upright=upright).shape[:2] == size


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    ("data", "reason", "message"),
    [
        (b"", "unreadable_picture", "none of JPEG"),
        (POSTSCRIPT, "unreadable_picture", "none of JPEG"),  # its decoder would call Ghostscript
        (file_of(Image.new("F", (2, 2)), "TIFF"), "unknown_range", "'F' have no known range"),
        (file_of(Image.fromarray(np.int32([[70_000]])), "TIFF"), "unknown_range", "beyond 16 bits"),
        (file_of(Image.effect_noise((64, 64), 80))[:-400], "unreadable_picture", "truncated"),
    ],
)
def test_what_has_no_known_colours_is_refused_by_name(data, reason, message):
    with pytest.raises(picture_files.PictureError, match=message) as error:
        picture_files.decode_rgb(data)

    assert error.value.reason == reason
    assert pickle.loads(pickle.dumps(error.value)).reason == reason


def test_a_picture_of_too_many_pixels_is_refused_unread(monkeypatch):
    monkeypatch.setattr(picture_files, "MAX_PIXELS", 15)
    with pytest.raises(ValueError, match="4 x 4 pixels, allowed: 15"):
        picture_files.decode_rgb(file_of(Image.new("L", (4, 4))))


def test_what_is_no_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ValueError, match="no plain file"):
        picture_files.decode_rgb(tmp_path / "pipe.jpg")


def test_a_stored_crop_counts_the_pixels_as_they_are_stored():
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(8, dtype=np.uint8).reshape(2, 4)
    record = {
        "rgb": np.frombuffer(file_of(Image.fromarray(pixels), exif=exif), np.uint8),
        "crop_settings": np.array([[0, 2, 2, 2, 0]]),  # stored 2 high, 4 wide
    }
    spec = ModalitySpec(name="rgb", kind="pixels", grid=(1, 1), patch_size=2, num_channels=3)

    batch = collate.collate([record], [{"rgb": "rgb"}], [0], [spec])

    assert batch["rgb"]["pixels"][0, ..., 0].tolist() == [[2, 3], [6, 7]]
