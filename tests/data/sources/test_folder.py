"""A folder of pictures is a source: by index, in a fixed order, with the captions beside them."""

import numpy as np
import pytest
from PIL import Image

from configs.data import folder as config
from fourm_jax.data import datasets, pipeline

EVERYTHING = {"test_fraction": 0.0}


def write(path, value=0, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def open_folder(root, split="train", **changes):
    arguments = {"directory": str(root), "image_size": 4, **EVERYTHING, **changes}
    return datasets.open_source("folder", split, arguments)


def test_pictures_come_in_the_order_of_their_paths_with_their_captions(tmp_path):
    for value, name in enumerate(["b.png", "a/z.png", "a/IMG_0001.png", "red_ball.png"]):
        write(tmp_path / name, value)
    (tmp_path / "b.txt").write_text("one\ntwo\n")
    (tmp_path / "a" / "z.json").write_text('{"caption": "a line"}')
    source = open_folder(tmp_path)
    assert [source[index]["rgb"].max() for index in range(len(source))] == [2, 1, 0, 3]
    captions = [source[index].get("caption") for index in range(len(source))]
    assert captions == [None, "a line", ["one", "two"], "red ball"]
    assert source.place(1).endswith("a/z.png")


def test_a_picture_becomes_its_centred_square_at_the_asked_size(tmp_path):
    pixels = np.repeat(np.arange(6, dtype=np.uint8)[None, :, None] * 40, 4, 0).repeat(3, 2)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(pixels.swapaxes(0, 1)).save(tmp_path / "tall.png")
    tall, wide = (open_folder(tmp_path)[index]["rgb"] for index in (0, 1))
    np.testing.assert_array_equal(wide, pixels[:, 1:5])
    np.testing.assert_array_equal(tall, pixels[:, 1:5].swapaxes(0, 1))
    assert open_folder(tmp_path, image_size=9)[0]["rgb"].shape == (9, 9, 3)


def test_splits_divide_the_pictures_and_new_ones_move_none(tmp_path):
    for number in range(40):
        write(tmp_path / f"{number}.png")

    def names(split):
        source = open_folder(tmp_path, split, test_fraction=0.3)
        return {source.place(index) for index in range(len(source))}

    train, test = names("train"), names("test")
    assert not train & test and len(train | test) == 40 and 4 <= len(test) <= 20
    for number in range(40, 80):
        write(tmp_path / f"{number}.png")
    assert train < names("train") and test < names("test")
    assert len(open_folder(tmp_path, "test", test_fraction=1.0)) == 80


def test_batches_of_any_pictures_have_one_shape(tmp_path):
    for number in range(4):
        write(tmp_path / f"{number}.png", number, size=(5 + number, 9 - number))
    dataset = datasets.Dataset(name="mine", source=open_folder(tmp_path), fields={})
    batch = next(pipeline.make_raw_batches([dataset], ("rgb",), batch_size=4, seed=0))
    assert batch["rgb"].shape == (4, 4, 4, 3)
    assert sorted(batch["rgb"].max((1, 2, 3))) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"split": "valid"}, "unknown split 'valid'"),
        ({"split": "test"}, "none of 1 pictures is in split 'test' with test_fraction 0.0"),
        ({"image_size": 0}, "image_size 0 and test_fraction 0.0, allowed: 1 and more"),
        ({"test_fraction": 1.5}, "allowed: 1 and more, 0..1"),
        ({"num_records": 2}, "num_records 2, allowed: 0..1"),
        ({"directory": "nowhere"}, "nowhere: no such folder"),
    ],
)
def test_a_wrong_argument_is_named(changes, message, tmp_path):
    write(tmp_path / "a.png")
    with pytest.raises(ValueError) as error:
        open_folder(tmp_path, **changes)
    assert message in str(error.value)


def test_an_unreadable_picture_or_sidecar_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    write(tmp_path / "b.png")
    (tmp_path / "b.json").write_text("{")
    source = open_folder(tmp_path)
    with pytest.raises(ValueError, match=r"a\.png: unreadable picture"):
        source[0]
    with pytest.raises(ValueError, match=r"b\.png: b\.json is not readable"):
        source[1]
    with pytest.raises(IndexError, match=r"record 2, allowed: 0\.\.1"):
        source[2]


def test_the_config_reads_a_folder(tmp_path):
    write(tmp_path / "a.png")
    arguments = config.get_config(f"tokenize,images={tmp_path}").arguments.to_dict()
    record = datasets.open_source("folder", "train", {**arguments, **EVERYTHING})[0]
    assert record["rgb"].shape == (224, 224, 3)
