"""A data set that `experiments.build_data` made of your own pictures -> tokens, several crops each.

python -m experiments.build_data --images=DIR --output=runs/pictures/raw
python -m experiments.tokenize_dataset --config=configs/pretokenize/pictures.py --split=train \
    --tokenizers=DIR --output=runs/pictures/data

DIR holds the tokenizers `rgb`, `edge` and `text`. With labels of models in the data set, add their
modalities to `names` (tok_depth@224, det, …) and to `configs/data/pictures.py`.
"""

import ml_collections

from configs.data import pictures
from fourm_jax.utils import config as config_lib


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; argument: raw, the folder of the built data set."""
    args = config_lib.parse_arg(arg, raw="runs/pictures/raw")
    config = ml_collections.ConfigDict()
    config.source = "token_shards"
    config.arguments = {"directory": args.raw}
    config.num_records = {"train": 0, "test": 0}  # all
    config.records_per_shard = 4_096
    config.seed = 0
    config.crops = {
        "num_crops": 4, "size": (224, 224), "scale": (0.8, 1.0), "ratio": (0.75, 1.3333),
        "flip_probability": 0.5, "seed": 0,
    }  # fmt: skip
    config.modalities = {"family": "fourm", "names": pictures.MODALITIES, "overrides": {}}
    return config.lock()
