"""Scanned digits -> tokens of every modality; seconds.

python -m experiments.tokenize_dataset --config=configs/pretokenize/digits.py --split=train \
    --tokenizers=runs/digits/tokenizers --output=runs/digits/data
"""

import ml_collections

from fourm_jax.modalities import registry


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; it takes no argument."""
    del arg
    config = ml_collections.ConfigDict()
    config.source = "digits"
    config.arguments = {"image_size": 32}
    config.num_records = {"train": 1_500, "test": 297}
    config.records_per_shard = 512
    config.seed = 0
    config.crops = {  # num_crops 0: records as they are
        "num_crops": 0, "size": (32, 32), "scale": (0.8, 1.0), "ratio": (0.75, 1.3333),
        "flip_probability": 0.5, "seed": 0,
    }  # fmt: skip
    config.modalities = {
        "family": "digits",
        "names": tuple(spec.name for spec in registry.FAMILIES["digits"]),
        "overrides": {},
    }
    return config.lock()
