"""TFDS data sets are read from their prepared folders, without the code that made them."""

import importlib
import json
import pickle
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

from configs.data import coco_2017_panoptic
from fourm_jax.data import datasets
from fourm_jax.data.crops import policy
from fourm_jax.data.sources import tfds
from fourm_jax.modalities import boxes, captions
from fourm_jax.utils import picture_files
from tests.data.sources import tfds_cases

PICTURE = {"image": tfds_cases.F.Image(), "note": tfds_cases.F.Text()}
FIELDS = {"rgb": ("picture", "image")}


def arguments(name, root, **changes):
    """Those of the shipped config."""
    module = importlib.import_module(f"configs.data.{name}")
    config = module.get_config(f"tokenize,data_dir={root},num_crops=0")
    return {**config.arguments.to_dict(), **changes}


def same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    return left == right


def write(root, example, version="1.0.0", **options):
    data = [tfds_cases.serialize({"note": ["-"], **example})]
    return tfds_cases.prepare(root, "toy", version, PICTURE, data, **options)


def open_toy(root, split="train", **changes):
    usual = {"dataset": "toy", "fields": FIELDS, "data_dir": str(root)}
    return tfds.make_source(split, **usual | changes)


@pytest.mark.parametrize("name", tfds_cases.CASES)
def test_a_config_maps_the_features_of_its_data_set_to_record_fields(name, tmp_path):
    tfds_cases.prepare_case(tmp_path, name)
    source = datasets.open_source("tfds", "train", arguments(name, tmp_path, image_size=0))
    assert len(source) == (2 if name == "coco_captions" else 1)  # "train+restval"
    assert same(source[len(source) - 1], tfds_cases.CASES[name][-1])


def test_reading_any_of_them_loads_no_tensorflow(tmp_path):
    for name in tfds_cases.CASES:
        tfds_cases.prepare_case(tmp_path, name)
    every = {name: arguments(name, str(tmp_path)) for name in tfds_cases.CASES}
    code = (
        "import sys\n"
        "from fourm_jax.data import datasets as sources\n"
        f"for arguments in {every!r}.values():\n"
        "    record = sources.open_source('tfds', 'train', arguments)[0]\n"
        "    assert 'rgb' not in record or record['rgb'].shape == (224, 224, 3)\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_centre_square_moves_everything_alike(tmp_path):
    tfds_cases.prepare_case(tmp_path, "coco_2017_panoptic")
    source = tfds.make_source("train", **arguments("coco_2017_panoptic", tmp_path, image_size=4))
    record = source[0]  # columns 1..4 of 6
    assert same(record["rgb"], tfds_cases.RGB[:, 1:5])
    assert same(record["semseg"], np.array([[81, 81, 1, 1]] * 4, np.uint8))
    # Of the two things, columns 0..1.5 and 3..4.5 of 6.
    np.testing.assert_allclose(record["det"]["boxes"], [[0, 0, 0.125, 1], [0.5, 0, 0.875, 1]])
    assert record["det"]["classes"] == ["class 79", "class 0"]


def test_the_texts_of_a_record_are_those_that_tokenization_writes(tmp_path):
    tfds_cases.prepare_case(tmp_path, "coco_captions")
    record = tfds.make_source("train", **arguments("coco_captions", tmp_path, image_size=0))[0]
    written = {captions.serialize(record["caption"], np.random.default_rng(n)) for n in range(9)}
    assert written == {"A cat.", "Ein Kätzchen."}  # one of them, drawn per record
    assert boxes.serialize(record["det"]) == ["v0=500 v1=250 v2=999 v3=749 class 2"]


def test_the_crops_of_a_config_are_cut_from_whole_pictures(tmp_path):
    tfds_cases.prepare_case(tmp_path, "coco_2017_panoptic")
    config = coco_2017_panoptic.get_config(f"tokenize,data_dir={tmp_path},num_crops=2")
    record = tfds.make_source("train", **config.arguments.to_dict())[0]
    assert record["rgb"].shape == (4, 6, 3)
    crops = policy.make(config.crops.to_dict()).crop_all(record, 0, ("rgb", "semseg", "det"))
    assert [crop["rgb"].shape for crop in crops] == [(224, 224, 3)] * 2
    assert [crop["semseg"].shape for crop in crops] == [(224, 224)] * 2


def test_what_an_example_does_not_tell_is_absent(tmp_path):
    example = tfds_cases.CASES["clevr"][3]
    nothing = {key: value[:0] for key, value in example.items() if key.startswith("objects/")}
    tfds_cases.prepare_case(tmp_path, "clevr", **nothing)
    assert set(tfds.make_source("train", **arguments("clevr", tmp_path))[0]) == {"rgb"}

    tfds_cases.prepare_case(tmp_path, "imagenet2012", label=[-1])
    assert set(tfds.make_source("train", **arguments("imagenet2012", tmp_path))[0]) == {"rgb"}

    write(tmp_path, {"note": ["no picture"]})
    assert open_toy(tmp_path)[0] == {}


def test_grey_pictures_have_three_channels(tmp_path):
    write(tmp_path, {"image": tfds_cases.png(np.full((2, 3), 7))})
    assert same(open_toy(tmp_path)[0]["rgb"], np.full((2, 3, 3), 7, np.uint8))


def test_features_that_no_field_needs_are_not_decoded(tmp_path):
    write(tmp_path, {"image": b"no picture", "note": ["hello"]})
    assert open_toy(tmp_path, fields={"caption": ("text", "note")})[0] == {"caption": "hello"}


def test_the_newest_version_is_read_unless_another_is_named(tmp_path):
    for version, value in (("1.9.0", 1), ("1.10.0", 2)):
        write(tmp_path, {"image": tfds_cases.png(np.full((2, 2, 3), value))}, version)
    assert open_toy(tmp_path)[0]["rgb"].max() == 2
    assert open_toy(tmp_path, dataset="toy:1.9.0")[0]["rgb"].max() == 1


def test_a_source_can_be_sent_to_a_worker_process(tmp_path):
    write(tmp_path, {"image": tfds_cases.png(tfds_cases.RGB)})
    copy = pickle.loads(pickle.dumps(open_toy(tmp_path, num_records=1)))
    assert same(copy[0]["rgb"], tfds_cases.RGB) and len(copy) == 1
    with pytest.raises(IndexError, match=r"record 1, allowed: 0\.\.0"):
        copy[1]


def test_a_data_set_that_is_not_prepared_says_how_to_prepare_it(tmp_path):
    (tmp_path / "coco" / "2014").mkdir(parents=True)
    with pytest.raises(ValueError) as error:
        tfds.make_source("train", **arguments("coco_2017_panoptic", tmp_path))
    command = f"tfds build coco/2017_panoptic --file_format=array_record --data_dir={tmp_path}"
    assert command in str(error.value) and 'pip install -e ".[tensorflow]"' in str(error.value)
    with pytest.raises(ValueError, match=r"\['2014'\]"):
        open_toy(tmp_path, dataset="coco")
    with pytest.raises(ValueError, match=r"allowed: name\[/config\]\[:version\]"):
        open_toy(tmp_path, dataset="../toy")


def test_a_data_set_without_random_access_says_how_to_convert_it(tmp_path):
    write(tmp_path, {"image": b""}, file_format="tfrecord")
    with pytest.raises(ValueError, match="tfds convert_format --dataset_version_dir="):
        open_toy(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"split": "trian"}, "Unknown split 'trian'"),
        ({"split": "valid", "splits": {"train": "train"}}, "unknown split of 'toy' 'valid'"),
        ({"fields": {"rgb": ("picture", "imge")}}, "unknown feature of 'toy' 'imge'; did you mean"),
        ({"fields": {"rgb": ("pictur", "image")}}, "unknown reader of TFDS features 'pictur'"),
        ({"fields": {"rgb": ("picture", "note")}}, r"not take the features \{'note': 'Text'\}"),
        ({"fields": {"rgb": ("picture", "image", "note")}}, "'picture' does not take"),
        ({"fields": {"det": ("boxes", "image")}}, "'boxes' does not take"),
        ({"num_records": 2}, r"num_records 2, allowed: 0\.\.1"),
    ],
)
def test_a_wrong_argument_is_named(changes, message, tmp_path):
    write(tmp_path, {"image": b""})
    with pytest.raises(ValueError, match=message):
        open_toy(tmp_path, **changes)


def bomb(side):
    """A PNG whose header claims side × side pixels."""
    data = bytearray(tfds_cases.png(np.zeros((1, 1, 3))))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", tfds_cases.png(tfds_cases.RGB)[:45], bomb(60_000)],
    ids=["empty", "text", "cut", "bomb"],
)
def test_an_unreadable_picture_is_named_with_its_record_and_field(data, tmp_path):
    write(tmp_path, {"image": data})
    with pytest.raises(ValueError, match=r"toy/1\.0\.0, split 'train', record 0, field 'rgb': "):
        open_toy(tmp_path)[0]


def test_a_value_that_breaks_its_reader_is_named_with_its_record_and_field(tmp_path):
    write(tmp_path, {"image": tfds_cases.png(tfds_cases.RGB), "note": ["[" * 100_000]})
    with pytest.raises(ValueError, match=r"record 0, field 'metadata': .* maximum recursion depth"):
        open_toy(tmp_path, fields={"metadata": ("json_value", "note")})[0]


def test_pixels_without_depth_are_missing_alone(tmp_path):
    depth = np.full((480, 640), 2.5, np.float32)
    depth[100, 200] = depth[:3, 80:83] = np.inf  # one, and a corner of the middle square
    tfds_cases.prepare_case(tmp_path, "nyu_depth_v2", depth=depth)
    record = tfds.make_source("train", **arguments("nyu_depth_v2", tmp_path))[0]
    assert np.argwhere(np.isnan(record["depth"])).tolist() == [[0, 0]]
    np.testing.assert_allclose(record["depth"][1:], 2.5, rtol=1e-6)


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_depth_must_be_somewhere_and_in_front(value, tmp_path):
    wrong = np.full((480, 640), value, np.float32)
    tfds_cases.prepare_case(tmp_path, "nyu_depth_v2", depth=wrong)
    with pytest.raises(ValueError, match="field 'depth': depth is negative or nowhere finite"):
        tfds.make_source("train", **arguments("nyu_depth_v2", tmp_path))[0]


def test_damaged_shards_are_errors_that_name_the_record(tmp_path):
    folder = write(tmp_path, {"image": tfds_cases.png(tfds_cases.RGB)})
    shard = next(folder.glob("*array_record*"))
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"toy/1\.0\.0, split 'train'"):
        open_toy(tmp_path)[0]
    shard.unlink()
    with pytest.raises(ValueError, match=r"toy/1\.0\.0, split 'train'.*No such file"):
        open_toy(tmp_path)[0]


def test_metadata_cannot_make_us_import_a_module(tmp_path, monkeypatch):
    (tmp_path / "hostile.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = write(tmp_path, {"image": b""})
    path = folder / "features.json"
    text = path.read_text()
    path.write_text(text.replace("tensorflow_datasets.core.features.text", "hostile"))
    with pytest.raises(ValueError, match="feature class 'hostile"):
        open_toy(tmp_path)
    path.write_text(json.dumps({"type": "hostile.Image", "content": {}}))
    with pytest.raises(ValueError, match=r"feature class 'hostile\.Image'"):
        open_toy(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"features\.json is not readable: Expecting"):
        open_toy(tmp_path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_are_refused_before_they_are_decoded(tmp_path):
    write(tmp_path, {"image": bomb(10_000)})
    with pytest.raises(ValueError, match=f"allowed: {picture_files.MAX_PIXELS}"):
        open_toy(tmp_path)[0]
