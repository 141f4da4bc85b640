"""The handwritten digits of scikit-learn as token shards.

Written by `python -m experiments.tokenize_dataset --config=configs/pretokenize/digits.py`.
"""

import ml_collections

from fourm_jax.modalities import registry

NAMES = tuple(spec.name for spec in registry.FAMILIES["digits"])
TARGETS = tuple(spec.name for spec in registry.FAMILIES["digits"] if spec.is_token)


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the data set; `arg` is the folder of its shards."""
    config = ml_collections.ConfigDict()
    config.name = "digits"
    config.source = "token_shards"
    config.arguments = {"directory": arg or "runs/digits/data"}
    config.fields = {name: name for name in NAMES}
    config.weight = 1.0
    config.mixture = mixture()
    return config


def mixture() -> dict:
    """From pixels to everything, anything to anything, from the caption (as for scenes)."""
    input_alphas = {name: [0.0, 0.5, 0.05] for name in NAMES}
    input_alphas["rgb"] = [1000.0, 0.5, 0.05]
    input_alphas["caption"] = [0.0, 0.5, 5.0]
    target_alphas = {name: [0.5, 0.5, 0.5] for name in TARGETS}
    target_alphas["caption"] = [0.5, 0.5, 0.0]
    return {
        "input_alphas": input_alphas,
        "target_alphas": target_alphas,
        "keep": {"caption": ["random", "random", "all"]},
        "weights": [0.5, 0.25, 0.25],
    }
