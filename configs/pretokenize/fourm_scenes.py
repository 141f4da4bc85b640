"""The embedded scenes, but read from the TFDS data set `fourm_scenes` instead of rendered.

tfds build fourm_jax/scenes/tfds_builders/fourm_scenes --file_format=array_record
python -m experiments.tokenize_dataset --config=configs/pretokenize/fourm_scenes.py --split=train \
    --tokenizers=runs/quickstart/tokenizers --output=runs/fourm_scenes/data
"""

import ml_collections

from configs.pretokenize import scenes
from fourm_jax.utils import config as config_lib

FIELDS = {
    "rgb": ("picture", "image"),
    **{name: ("labels", name) for name in ("semseg", "instance", "edge", "instance_edge")},
    **{name: ("array", name) for name in ("depth", "normal", "feature", "feature_global")},
    **{name: ("array", name) for name in ("poses", "num_objects", "color_palette")},
    "caption": ("text", "caption"),
    "det": ("boxes", "objects"),
    "metadata": ("json_value", "metadata"),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; argument: data_dir, where TFDS keeps its data sets."""
    args = config_lib.parse_arg(arg, data_dir="")
    config = scenes.get_config().unlock()
    config.source = "tfds"
    config.arguments = ml_collections.ConfigDict(
        {"dataset": "fourm_scenes", "fields": FIELDS, "data_dir": args.data_dir}
    )
    return config.lock()
