"""One tiny example of each TFDS data set that has a config, and how to prepare it on disk.

Features are those that TFDS declares (tests/data/test_tfds_tensorflow.py compares them); examples
are written as tf.train.Example by hand, so that no TensorFlow is needed.
"""

import io
import json

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

F = tfds.features


def png(pixels, mode=None):
    """Bytes of a PNG of an array."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8), mode).save(file, "PNG")
    return file.getvalue()


# Six columns of one colour each, so that crops can be told apart.
RGB = np.repeat(np.arange(6, dtype=np.uint8)[None, :, None] * 40, 4, 0).repeat(3, 2)


def _objects(num_classes):
    return F.Sequence(
        {
            "id": np.int64,
            "area": np.int64,
            "bbox": F.BBoxFeature(),
            "label": F.ClassLabel(names=[f"class {number}" for number in range(num_classes)]),
            "is_crowd": np.bool_,
        }
    )


COCO = {
    "image": F.Image(encoding_format="jpeg"),
    "image/filename": F.Text(),
    "image/id": np.int64,
}
IMAGENET_IDS = [f"n{number:08d}" for number in range(1000)]

# {name: (TFDS name, version, features, flat example, record)}
CASES = {
    "coco_captions": (
        "coco_captions/2014",
        "1.1.0",
        {
            **COCO,
            "objects": _objects(80),
            "captions": F.Sequence({"text": np.str_, "id": np.int64}),
        },
        {
            "image": png(RGB),
            "objects/id": [10, 11],
            "objects/area": [100, 101],
            "objects/bbox": np.array([[0.25, 0.5, 0.75, 1.0], [0, 0, 1, 1]], np.float32),
            "objects/label": [2, 1],
            "objects/is_crowd": [0, 1],
            "captions/text": ["A cat.", "Ein Kätzchen."],
            "captions/id": [1, 2],
        },
        {
            "rgb": RGB,
            "caption": ["A cat.", "Ein Kätzchen."],
            "det": {
                "boxes": np.array([[0.5, 0.25, 1.0, 0.75]], np.float32),
                "classes": ["class 2"],
            },
        },
    ),
    "coco_2017_panoptic": (
        "coco/2017_panoptic",
        "1.1.0",
        {
            **COCO,
            "panoptic_image": F.Image(encoding_format="png"),
            "panoptic_image/filename": F.Text(),
            "panoptic_objects": _objects(133),
        },
        {
            "image": png(RGB),
            # Ids 7, 2 * 256, 3 * 65536, and 1, which nothing explains.
            "panoptic_image": png(
                [[[7, 0, 0], [0, 2, 0], [0, 2, 0], [0, 0, 3], [0, 0, 3], [1, 0, 0]]] * 4
            ),
            "panoptic_objects/id": [7, 512, 196608],
            "panoptic_objects/area": [4, 8, 8],
            "panoptic_objects/bbox": np.array(
                [[0, 0, 1, 0.25], [0, 0.25, 1, 0.5], [0, 0.5, 1, 0.75]], np.float32
            ),
            "panoptic_objects/label": [79, 80, 0],
            "panoptic_objects/is_crowd": [0, 0, 0],
        },
        {
            "rgb": RGB,
            "semseg": np.array([[80, 81, 81, 1, 1, 0]] * 4, np.uint8),
            "det": {
                "boxes": np.array([[0, 0, 0.25, 1], [0.5, 0, 0.75, 1]], np.float32),
                "classes": ["class 79", "class 0"],
            },
        },
    ),
    "nyu_depth_v2": (
        "nyu_depth_v2",
        "0.0.1",
        {
            "image": F.Image(shape=(480, 640, 3)),
            "depth": F.Tensor(shape=(480, 640), dtype=np.float16),
        },
        {
            "image": png(np.full((480, 640, 3), 9)),
            "depth": np.full((480, 640), 2.5, np.float32),
        },
        {
            "rgb": np.full((480, 640, 3), 9, np.uint8),
            "depth": np.full((480, 640), 2.5, np.float32),
        },
    ),
    "clevr": (
        "clevr",
        "3.1.0",
        {
            "image": F.Image(),
            "file_name": F.Text(),
            "objects": F.Sequence(
                {
                    "color": F.ClassLabel(
                        names=["gray", "blue", "brown", "yellow", "red", "green", "purple", "cyan"]
                    ),
                    "material": F.ClassLabel(names=["rubber", "metal"]),
                    "shape": F.ClassLabel(names=["cube", "sphere", "cylinder"]),
                    "size": F.ClassLabel(names=["small", "large"]),
                    "rotation": F.Tensor(shape=(), dtype=np.float32),
                    "3d_coords": F.Tensor(shape=(3,), dtype=np.float32),
                    "pixel_coords": F.Tensor(shape=(3,), dtype=np.float32),
                }
            ),
            "question_answer": F.Sequence({"question": F.Text(), "answer": F.Text()}),
        },
        {
            "image": png(RGB),
            "objects/color": [4, 7],
            "objects/material": [1, 0],
            "objects/shape": [0, 2],
            "objects/size": [1, 0],
            "objects/rotation": np.array([0.5, 1.5], np.float32),
            "objects/3d_coords": np.zeros((2, 3), np.float32),
            "objects/pixel_coords": np.zeros((2, 3), np.float32),
        },
        {"rgb": RGB, "caption": "a large red metal cube, a small cyan rubber cylinder"},
    ),
    "oxford_iiit_pet": (
        "oxford_iiit_pet",
        "4.0.0",
        {
            "image": F.Image(encoding_format="jpeg"),
            "label": F.ClassLabel(names=["Abyssinian", "american_bulldog", *map(str, range(35))]),
            "species": F.ClassLabel(names=["Cat", "Dog"]),
            "file_name": F.Text(),
            "segmentation_mask": F.Image(shape=(None, None, 1), use_colormap=True),
            "head_bbox": F.BBoxFeature(),
        },
        {
            "image": png(RGB),
            "label": [1],
            "species": [1],
            "segmentation_mask": png([[1, 1, 3, 2, 2, 2]] * 4),
            "head_bbox": np.zeros(4, np.float32),
        },
        {
            "rgb": RGB,
            "semseg": np.array([[17, 17, 0, 0, 0, 0]] * 4, np.uint8),
            "caption": "american bulldog Dog",
        },
    ),
    "c4": (
        "c4/en",
        "3.1.0",
        {name: F.Text() for name in ("text", "timestamp", "url", "content-length", "content-type")},
        {"text": ["Once upon a time."], "url": ["https://example.org"]},
        {"caption": "Once upon a time."},
    ),
    "imagenet2012": (
        "imagenet2012",
        "5.1.0",
        {
            "image": F.Image(encoding_format="jpeg"),
            "label": F.ClassLabel(names=IMAGENET_IDS),
            "file_name": F.Text(),
        },
        {"image": png(RGB), "label": [2], "file_name": ["n01484850_1.JPEG"]},
        {"rgb": RGB, "caption": "great white shark"},
    ),
}


def serialize(example):
    """Bytes of a flat example: pictures and texts as bytes_list, floats and integers as theirs."""
    features = {}
    for name, value in example.items():
        values = [value] if isinstance(value, bytes) else list(np.ravel(value).tolist())
        if values and isinstance(values[0], bytes | str):
            texts = [text.encode() if isinstance(text, str) else text for text in values]
            features[name] = tf_feature_pb2.Feature(bytes_list={"value": texts})
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            features[name] = tf_feature_pb2.Feature(float_list={"value": values})
        else:
            features[name] = tf_feature_pb2.Feature(int64_list={"value": values})
    return tf_example_pb2.Example(features={"feature": features}).SerializeToString()


def prepare(root, name, version, features, examples, splits=("train",), file_format="array_record"):
    """Write a data set as TFDS does; returns its folder.

    Args:
      name: "dataset" or "dataset/config".
      examples: serialized tf.train.Examples, the same in every split.
    """
    dataset, _, config = name.partition("/")
    folder = root / name / version
    folder.mkdir(parents=True)
    F.FeaturesDict(features).save_config(str(folder))
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    info = {
        "name": dataset,
        "version": version,
        "fileFormat": file_format,
        "splits": [
            {
                "name": split,
                "shardLengths": [str(len(examples))],
                "numBytes": str(sum(map(len, examples))),
                "filepathTemplate": template,
            }
            for split in splits
        ],
    }
    if config:
        info["configName"] = config
    (folder / "dataset_info.json").write_text(json.dumps(info))
    for split in splits:
        shard = folder / f"{dataset}-{split}.{file_format}-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(shard), "group_size:1")
        for example in examples:
            writer.write(example)
        writer.close()
    return folder


def prepare_case(root, name, **changes):
    """Write the example of one case, with some of its values changed; returns the folder."""
    tfds_name, version, features, example, _ = CASES[name]
    splits = ("train", "restval") if name == "coco_captions" else ("train",)
    return prepare(root, tfds_name, version, features, [serialize(example | changes)], splits)
