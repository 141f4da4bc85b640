"""What needs TensorFlow: the features that TFDS declares, its random examples, and our builder."""

import importlib
import importlib.util
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from configs.data import scenes as scenes_config
from fourm_jax.data.sources import tfds
from tests.data.sources import tfds_cases

ROOT = pathlib.Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason='TensorFlow is missing: pip install -e ".[tensorflow]"',
)


@pytest.mark.parametrize("name", tfds_cases.CASES)
def test_a_data_set_as_tfds_declares_and_mocks_it_can_be_read(name, tmp_path):
    import tensorflow_datasets
    from tensorflow_datasets.testing import mocking

    tfds_name, version, ours, _, _ = tfds_cases.CASES[name]
    builder = tensorflow_datasets.builder(tfds_name, data_dir=tmp_path / "code")
    declared = builder.info.features
    assert str(builder.version) == version
    assert declared.to_json() == tfds_cases.F.FeaturesDict(ours).to_json()

    # Random examples as `tfds.testing.mock_data` makes them, but on disk, where we read.
    mocked = mocking.RandomFakeGenerator(declared, 2, max_value=4, constant_dynamic_shape=True)
    examples = [declared.serialize_example(_ordered(example)) for example in mocked]
    config = importlib.import_module(f"configs.data.{name}")
    raw = config.get_config(f"tokenize,data_dir={tmp_path}").arguments.to_dict()
    splits = raw["splits"]["train"].split("+")
    tfds_cases.prepare(tmp_path, tfds_name, version, dict(declared), examples, splits)
    source = tfds.make_source("train", **raw)
    assert len(source) == 2 * len(splits)
    assert set(source[1]) == set(raw["fields"])


def _ordered(example):
    """Random boxes with ymin <= ymax and xmin <= xmax."""
    for value in example.values():
        if isinstance(value, dict) and "bbox" in value:
            value["bbox"] = np.sort(value["bbox"])[:, [0, 1, 3, 2]]
    if "head_bbox" in example:
        example["head_bbox"] = np.sort(example["head_bbox"])
    return example


def test_scenes_built_by_tfds_are_read_without_tensorflow_bit_by_bit(tmp_path):
    folder = ROOT / "fourm_jax/scenes/tfds_builders/fourm_scenes"
    build = (sys.executable, "-m", "tensorflow_datasets.scripts.cli.main", "build", str(folder))
    options = ("--file_format=array_record", "--max_examples_per_split=5", f"--data_dir={tmp_path}")
    done = subprocess.run([*build, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]

    arguments = scenes_config.get_config(f"tokenize,tfds,data_dir={tmp_path}").arguments.to_dict()
    code = f"""
import sys
import numpy as np
from fourm_jax.data import datasets as sources
from fourm_jax.scenes import world as scenes

def equal(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[k], right[k]) for k in left)
    if isinstance(left, np.ndarray):
        same = left.dtype == right.dtype and left.shape == right.shape
        return same and left.tobytes() == right.tobytes()
    return type(left) is type(right) and left == right

for split in ("train", "test"):
    source = sources.open_source("tfds", split, {arguments!r})
    rendered = scenes.SceneSource(split, 5)
    assert len(source) == 5
    for index in range(5):
        assert equal(source[index], rendered[index]), (split, index)
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
