"""A plain folder of pictures and the captions beside them (a.jpg, a.txt) -> tokens.

python -m experiments.tokenize_dataset --config=configs/pretokenize/folder.py:images=DIR \
    --split=train --tokenizers=DIR --output=DIR

One picture in ten, by its path, is held out as --split=test.
"""

import ml_collections

from fourm_jax.utils import config as config_lib


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; argument: images, the folder."""
    args = config_lib.parse_arg(arg, images="images")
    config = ml_collections.ConfigDict()
    config.source = "folder"
    config.arguments = {"directory": args.images, "image_size": 224, "test_share": 0.1}
    config.num_records = {"train": 0, "test": 0}  # all
    config.records_per_shard = 4_096
    config.seed = 0
    config.modalities = {
        "family": "fourm", "names": ("rgb@224", "tok_rgb@224", "caption"), "overrides": {},
    }  # fmt: skip
    return config.lock()
