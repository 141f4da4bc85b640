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
    config.modalities = {
        "family": "digits",
        "names": tuple(spec.name for spec in registry.FAMILIES["digits"]),
        "overrides": {},
    }
    return config.lock()
