"""Raw scenes -> tokens of every modality; rendering, tokenizers and text in one pass.

python -m experiments.tokenize_dataset --config=configs/pretokenize/scenes.py --split=train \
    --tokenizers=runs/quickstart/tokenizers --output=runs/quickstart/data
"""

import ml_collections

from fourm_jax.modalities import registry


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; it takes no argument."""
    del arg
    config = ml_collections.ConfigDict()
    config.source = "scenes"
    config.arguments = {"image_size": 32, "seed": 0}
    config.num_records = {"train": 16_384, "test": 512}
    config.records_per_shard = 4_096
    # Texts in one fixed order: a small model that writes fields in random order repeats some and
    # forgets others.
    config.seed = None
    config.crops = {  # num_crops 0: records as they are
        "num_crops": 0, "size": (32, 32), "scale": (0.8, 1.0), "ratio": (0.75, 1.3333),
        "flip_probability": 0.5, "seed": 0,
    }  # fmt: skip
    config.modalities = {
        "family": "scenes",
        "names": tuple(spec.name for spec in registry.FAMILIES["scenes"]),
        "overrides": {},
    }
    return config.lock()
