"""Folders of pictures by class, and of pictures with masks."""

import numpy as np
import pytest
from PIL import Image

from fourm_jax.data import datasets


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def opened(name, folder, split="train", **arguments):
    given = {"directory": str(folder), "image_size": 4, "test_fraction": 0.0, **arguments}
    return datasets.open_source(name, split, given)


def test_the_folder_of_a_picture_is_its_class(tmp_path):
    save(tmp_path / "dog" / "a.png", np.full((8, 8, 3), 9))
    save(tmp_path / "cat" / "b.png", np.full((8, 12, 3), 7))
    source = opened("class_folder", tmp_path)
    assert source.classes == ("cat", "dog")
    assert [int(source[index]["label"]) for index in range(2)] == [0, 1]
    np.testing.assert_array_equal(source[0]["rgb"], np.full((4, 4, 3), 7))


def test_a_picture_with_a_class_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    rows = np.repeat(np.arange(8, dtype=np.uint8) * 30, 24).reshape(8, 8, 3)
    (tmp_path / "cat").mkdir()
    Image.fromarray(rows).save(tmp_path / "cat" / "a.png", exif=exif)
    picture = opened("class_folder", tmp_path, image_size=8)[0]["rgb"]
    np.testing.assert_array_equal(picture, rows[::-1])


def test_a_picture_without_a_class_an_unknown_class_and_an_empty_split_are_refused(tmp_path):
    save(tmp_path / "cat" / "b.png", np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match=r"none of 1 pictures is in split 'test'"):
        opened("class_folder", tmp_path, "test")
    with pytest.raises(ValueError, match=r"b\.png: class 'cat', allowed: \('dog',\)"):
        opened("class_folder", tmp_path, classes=("dog",))
    save(tmp_path / "c.png", np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match=r"c\.png is in no class; expected CLASS/c\.png"):
        opened("class_folder", tmp_path)


def test_masks_keep_their_classes_at_another_size(tmp_path):
    mask = np.repeat(np.repeat([[0, 1], [2, 255]], 4, 0), 4, 1)
    save(tmp_path / "images" / "a.png", np.zeros((8, 8, 3)))
    save(tmp_path / "masks" / "a.png", mask)
    record = opened("mask_folder", tmp_path)[0]
    np.testing.assert_array_equal(record["label"], mask[::2, ::2])
    assert record["rgb"].shape == (4, 4, 3)


def test_files_that_are_not_read_are_one_line_with_an_example(tmp_path, capsys):
    save(tmp_path / "classes" / "cat" / "a.png", np.zeros((8, 8, 3)))
    (tmp_path / "classes" / "cat" / "b.heic").touch()
    save(tmp_path / "pairs" / "images" / "a.png", np.zeros((8, 8, 3)))
    for name in ("a", "b", "c"):
        save(tmp_path / "pairs" / "masks" / f"{name}.png", np.zeros((8, 8)))
    (tmp_path / "pairs" / "masks" / "classes.csv").touch()
    opened("class_folder", tmp_path / "classes")
    opened("mask_folder", tmp_path / "pairs")
    assert capsys.readouterr().out.replace(f"{tmp_path}/", "").splitlines() == [
        "classes: 1 file not read, such as 'cat/b.heic': .heic pictures are not read: make JPEG of "
        "them",
        "pairs/masks: 1 file not read, such as 'classes.csv': the ending is not that of a picture",
        "pairs/masks: 2 files not read, such as 'b.png': no picture in images has its name",
    ]
    opened("class_folder", tmp_path / "classes", "test", test_fraction=1.0)
    opened("mask_folder", tmp_path / "pairs", "test", test_fraction=1.0)
    assert not capsys.readouterr().out


def test_a_mask_of_another_size_and_a_missing_one_are_refused_by_name(tmp_path):
    save(tmp_path / "images" / "a.png", np.zeros((8, 8, 3)))
    save(tmp_path / "masks" / "a.png", np.zeros((8, 6)))
    with pytest.raises(ValueError, match=r"a\.png: a mask of \(8, 6\) pixels, its picture has"):
        opened("mask_folder", tmp_path)[0]
    save(tmp_path / "images" / "b.png", np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match=r"b\.png has no mask"):
        opened("mask_folder", tmp_path)


def test_masks_belong_to_the_pictures_in_the_folder_of_their_name(tmp_path):
    for value, folder in enumerate(("one", "two")):
        save(tmp_path / "images" / folder / "a.png", np.zeros((8, 8, 3)))
        save(tmp_path / "masks" / folder / "a.png", np.full((8, 8), value))
    source = opened("mask_folder", tmp_path)
    assert [int(source[index]["label"].max()) for index in range(2)] == [0, 1]
    save(tmp_path / "masks" / "two" / "a.bmp", np.zeros((8, 8)))
    with pytest.raises(ValueError, match=r"two/a\.png, but 2: two/a\.bmp, two/a\.png"):
        opened("mask_folder", tmp_path)
