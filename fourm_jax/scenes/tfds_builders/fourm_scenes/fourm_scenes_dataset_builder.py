"""TFDS builder of the embedded 3-D scenes, all signals of `fourm_jax.scenes.world` bit by bit.

    pip install -e ".[tensorflow]"
    tfds build fourm_jax/scenes/tfds_builders/fourm_scenes --file_format=array_record

16,384 scenes for training and 512 held out, 32 × 32 pixels; `--max_examples_per_split=64` tries it.
Writing needs TensorFlow, reading does not: configs/data/scenes.py:tokenize,tfds.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fourm_jax.scenes import world

IMAGE_SIZE = 32
NUM_RECORDS = {"train": 16_384, "test": 512}
PLANES = ("semseg", "instance", "edge", "instance_edge")  # one channel of uint8
NUMBERS = {
    "depth": ((IMAGE_SIZE, IMAGE_SIZE), np.float32),
    "normal": ((IMAGE_SIZE, IMAGE_SIZE, 3), np.float32),
    "feature": ((IMAGE_SIZE // 4, IMAGE_SIZE // 4, 12), np.float32),
    "feature_global": ((32,), np.float32),
    "poses": ((world.MAX_OBJECTS, len(world.POSE_FIELDS)), np.float32),
    "color_palette": ((None, 3), np.uint8),
}


class Builder(tfds.core.GeneratorBasedBuilder):
    """Record i of a split is scene i of `scenes.world.SceneSource`."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        plane = tfds.features.Image(shape=(IMAGE_SIZE, IMAGE_SIZE, 1), encoding_format="png")
        features = {
            "image": tfds.features.Image(shape=(IMAGE_SIZE, IMAGE_SIZE, 3), encoding_format="png"),
            **dict.fromkeys(PLANES, plane),
            **{
                name: tfds.features.Tensor(shape=shape, dtype=dtype, encoding="zlib")
                for name, (shape, dtype) in NUMBERS.items()
            },
            "num_objects": np.int32,
            "caption": tfds.features.Text(),
            "objects": tfds.features.Sequence(
                {
                    "bbox": tfds.features.BBoxFeature(),
                    "label": tfds.features.ClassLabel(names=world.SHAPES),
                }
            ),
            # As JSON, which keeps float64 exactly; tf.train.Example has float32 only.
            "metadata": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Rendered 3-D scenes with exactly aligned ground truth for every signal.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # keeps the order of the scenes
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in NUM_RECORDS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        source = world.SceneSource(split, NUM_RECORDS[split], IMAGE_SIZE)
        for index in range(len(source)):
            yield index, _example(source[index])


def _example(record: dict[str, Any]) -> dict[str, Any]:
    corners, classes = record["det"]["boxes"], record["det"]["classes"]
    return {
        "image": record["rgb"],
        **{name: record[name][..., None] for name in PLANES},
        **{name: record[name] for name in NUMBERS},
        "num_objects": record["num_objects"],
        "caption": record["caption"],
        "objects": [
            {"bbox": tfds.features.BBox(ymin, xmin, ymax, xmax), "label": name}
            for (xmin, ymin, xmax, ymax), name in zip(corners, classes, strict=True)
        ],
        "metadata": json.dumps(record["metadata"]),
    }
