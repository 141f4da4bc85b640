"""A prepared TFDS data set -> tokens; `configs/data/NAME.py` says what is read and what it becomes.

python -m experiments.tokenize_dataset --config=configs/pretokenize/tfds.py:coco_captions \
    --split=train --tokenizers=DIR --output=runs/coco_captions/data
"""

import importlib

import ml_collections

from configs.data import tfds
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; `arg` is a name of `configs.data.tfds.NAMES`, then options:

    data_dir (where TFDS keeps its data sets, if not where it does by default), num_crops (of every
    picture, 4; with 0 it is its centred square alone). C4 has no pictures and no crops.
    """
    name, _, options = (arg or tfds.NAMES[0]).partition(",")
    if name not in tfds.NAMES:
        raise ValueError(errors.unknown_value("TFDS data set", name, tfds.NAMES))
    args = config_lib.parse_arg(options, data_dir="", num_crops=4)
    dataset = importlib.import_module(f"configs.data.{name}")
    config = ml_collections.ConfigDict()
    config.source = "tfds"
    config.arguments = {**dataset.RAW, "data_dir": args.data_dir}
    config.num_records = {"train": 0, "test": 0}  # all
    config.records_per_shard = 4_096
    config.seed = 0
    if args.num_crops and "rgb" in dataset.RAW["fields"]:
        config.crops = {
            "num_crops": args.num_crops, "size": (224, 224), "scale": (0.8, 1.0),
            "ratio": (0.75, 1.3333), "flip_probability": 0.5, "seed": 0,
        }  # fmt: skip
    else:
        config.arguments.image_size = 224
    config.modalities = {"family": tfds.FAMILY, "names": dataset.MODALITIES, "overrides": {}}
    return config.lock()
