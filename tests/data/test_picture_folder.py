"""Pictures of a user: found, decoded upright at one size, captioned; hostile ones are refused."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fourm_jax.data import picture_folder, sidecars

RED = (200, 30, 40)


def save(path, size=(40, 20), color=RED, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)
    return path


def noise(path):
    Image.effect_noise((64, 64), 80).save(path)
    return path


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def declare(path, width, height):
    """A PNG whose header claims a size and whose pixels are missing."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    return path


def test_pictures_are_found_in_order_and_other_files_are_left_alone(tmp_path):
    for name in ("b.JPG", "a.png", "inner/c.webp", ".hidden.png", ".git/d.png"):
        save(tmp_path / name, format="PNG")
    (tmp_path / "a.txt").write_text("a caption")
    (tmp_path / "notes.pdf").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "inner" / "loop").symlink_to(tmp_path)

    found = picture_folder.find(tmp_path)
    assert found.pictures == ["a.png", "b.JPG", "inner/c.webp"]
    listed = {one.place: one.reason for one in found.others}
    assert listed == {"notes.pdf": "not_a_picture", "inner/loop": "linked_folder"}


def test_a_sidecar_whose_ending_is_not_looked_for_is_listed(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "a.Txt").write_text("never read")
    [other] = picture_folder.find(tmp_path).others
    assert str(other) == "a.Txt: its ending must be .txt or .TXT"


def test_what_is_named_like_a_picture_and_is_no_file_is_found_and_never_opened(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")

    assert picture_folder.find(tmp_path).pictures == ["gone.jpg", "pipe.jpg"]
    assert picture_folder.fingerprint(tmp_path, ["gone.jpg", "pipe.jpg"])
    for name in ("gone.jpg", "pipe.jpg"):
        with pytest.raises(ValueError, match="no plain file, or a link to none"):
            picture_folder.read(tmp_path / name, 16)


def test_a_folder_without_pictures_is_one_clear_error(tmp_path):
    (tmp_path / "a.txt").write_text("a caption")

    with pytest.raises(ValueError, match=r"no picture among 1 files; looked for .*\.jpg"):
        picture_folder.find(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        picture_folder.find(tmp_path / "nothing")


@pytest.mark.parametrize(("size", "expected"), [((40, 20), (16, 32)), ((20, 41), (33, 16))])
def test_the_shorter_side_gets_the_stated_size(tmp_path, size, expected):
    rgb, original = picture_folder.read(save(tmp_path / "a.png", size), 16)

    assert (rgb.shape, rgb.dtype, original) == ((*expected, 3), np.uint8, size[::-1])
    assert (rgb == RED).all()


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image = Image.new("RGB", (40, 20))
    image.paste(RED, (0, 0, 20, 20))
    image.save(tmp_path / "a.png", exif=exif)

    rgb, original = picture_folder.read(tmp_path / "a.png", 20)

    assert original == (40, 20)
    assert (rgb[:19] == RED).all() and not rgb[21:].any()  # the left half is now on top


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "none of JPEG, PNG"),
        (lambda path: path.write_text("<html>"), "none of JPEG, PNG"),
        (lambda path: cut(noise(path)), "image file is truncated"),
        (lambda path: cut(save(path)), "Truncated File Read"),  # within its header
        (lambda path: declare(path, 60_000, 60_000), "exceeds limit|allowed: 67108864 in total"),
        (lambda path: declare(path, 9_000, 9_000), "allowed: 67108864 in total"),
        (lambda path: declare(path, 100, 100), "unreadable picture"),
        (lambda path: save(path, (500, 20)), "allowed: sides up to 1:8"),
        (lambda path: save(path, (1, 1)), "1 x 1 pixels, allowed: 2 and more along each side"),
        (lambda path: Image.new("F", (9, 9)).save(path, "TIFF"), "mode 'F' have no known range"),
    ],
    ids=["empty", "text", "cut", "cut early", "bomb", "large", "no pixels", "long", "dot", "float"],
)
def test_what_is_no_usable_picture_is_refused_with_the_reason(tmp_path, make, message):
    path = tmp_path / "a.jpg"
    make(path)

    with pytest.raises(ValueError, match=message) as error:
        picture_folder.read(path, 16)
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.txt", "a red  ball\n", ["a red ball"]),
        ("x.txt", "\ufeffa red ball\r\n\r\na ball\r\n", ["a red ball", "a ball"]),
        ("x.txt", "", []),
        ("x.json", '"a ball"', ["a ball"]),
        ("x.json", '{"caption": ["a ball", {"caption": "red"}], "id": 3}', ["a ball", "red"]),
        ("x.JSON", '["a", "b"]', ["a", "b"]),
    ],
)
def test_captions_come_from_the_file_beside_the_picture(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content.encode())

    assert sidecars.captions(save(tmp_path / "x.jpg")) == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("red barn.txt", "0 0.485 0.334 0.253 0.059\n1 0.449 0.529 0.180 0.060\n"),  # YOLO
        ("red barn.json", '{"version": "5.4", "shapes": [], "imagePath": "x.png"}'),  # LabelMe
        ("red barn.json", '{"images": [], "annotations": []}'),  # COCO
    ],
)
def test_labels_of_other_programs_are_no_captions(tmp_path, name, content):
    (tmp_path / name).write_text(content)

    assert sidecars.captions(save(tmp_path / "red barn.png")) == ["red barn"]


def test_every_file_of_a_folder_is_a_picture_or_listed_with_its_reason(tmp_path):
    for name in ("a.jpg", "b.jfif", "c.jpe", "d.avif"):
        save(tmp_path / name, format="PNG")
    for name in ("e.heic", "a.txt", "f.txt", "notes.md", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_text("x")

    pictures, others = picture_folder.find(tmp_path)

    assert pictures == ["a.jpg", "b.jfif", "c.jpe", "d.avif"]
    assert [(one.place, one.reason) for one in others] == [
        ("e.heic", "unsupported_format"),
        ("f.txt", "sidecar_alone"),
        ("notes.md", "not_a_picture"),
    ]


def test_text_comes_before_json(tmp_path):
    (tmp_path / "x.txt").write_text("from text")
    (tmp_path / "x.json").write_text('"from json"')

    assert sidecars.captions(save(tmp_path / "x.jpg")) == ["from text"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("red_ball-02.jpg", ["red ball"]),
        ("a dog, asleep.png", ["a dog asleep"]),
        ("IMG_20240131.jpg", []),
        ("DSC00012.JPG", []),
        ("WhatsApp Image 2024-01-31 at 10.11.12.jpg", []),
        ("12345.png", []),
        ("cafe\u0301 हिन्दी.jpg", ["café हिन्दी"]),  # macOS stores accents as characters of their own
    ],
)
def test_a_file_name_is_a_caption_unless_a_camera_gave_it(tmp_path, name, expected):
    assert sidecars.captions(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("tabby_cat/0001.jpg", ["tabby cat"]),
        ("cats/tabby/IMG_1.jpg", ["tabby"]),
        ("cats/train/images/0001.jpg", ["cats"]),
        ("cats/a dog.jpg", ["a dog"]),
        ("n01440764/0001.jpg", []),
        ("train/0001.jpg", []),
    ],
)
def test_a_picture_without_a_name_is_called_as_its_folder(tmp_path, file, expected):
    path = save(tmp_path / file)
    assert sidecars.captions(path, path.relative_to(tmp_path).parent) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", "café".encode("latin-1"), r"x\.txt is not readable: .*utf-8"),
        ("x.json", b"{", r"x\.json is not readable"),
        ("x.json", b"[" * 100_000, r"x\.json is not readable"),
        ("x.json", b'{"title": "x"}', "a caption is a text"),
        ("x.json", b'"\\ud800"', r"x\.json is not readable"),
        ("x.txt", b"a" * (2**20 + 1), "larger than 1048576 bytes"),
    ],
)
def test_an_unreadable_sidecar_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ValueError, match=message):
        sidecars.captions(save(tmp_path / "x.jpg"))


def test_a_sidecar_that_two_pictures_claim_is_refused(tmp_path):
    save(tmp_path / "x.jpg"), save(tmp_path / "x.png")
    assert sidecars.captions(tmp_path / "x.png") == []  # one letter: no name, and no sidecar

    (tmp_path / "x.txt").write_text("which one?")
    with pytest.raises(ValueError, match=r"x\.txt could describe x\.jpg or x\.png"):
        sidecars.captions(tmp_path / "x.jpg")


def test_another_picture_or_sidecar_changes_the_fingerprint(tmp_path):
    save(tmp_path / "x.jpg")
    before = picture_folder.fingerprint(tmp_path, ["x.jpg"])
    assert picture_folder.fingerprint(tmp_path, ["x.jpg"]) == before

    (tmp_path / "x.json").write_text(json.dumps("a ball"))
    assert picture_folder.fingerprint(tmp_path, ["x.jpg"]) != before
