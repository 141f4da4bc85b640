"""The rendered scenes as token shards: what each modality reads and how its samples are masked.

Written by `python -m experiments.tokenize_dataset --config=configs/pretokenize/scenes.py`.
"""

import ml_collections

from fourm_jax.modalities import registry

PIXELS = "rgb"
TEXT = ("caption", "det", "color_palette", "metadata")
NAMES = tuple(spec.name for spec in registry.FAMILIES["scenes"])
TARGETS = tuple(spec.name for spec in registry.FAMILIES["scenes"] if spec.is_token)


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the data set; `arg` is the folder of its shards."""
    config = ml_collections.ConfigDict()
    config.name = "scenes"
    config.source = "token_shards"
    config.arguments = {"directory": arg or "runs/quickstart/data"}
    config.fields = {name: name for name in NAMES}
    config.weight = 1.0
    config.mixture = mixture()
    return config


def mixture() -> dict:
    """Three kinds of samples: from pixels to everything, anything to anything, from the caption.

    Dirichlet concentrations per modality, one per kind (spec page 05); `keep` says how much of a
    sequence may be seen: a random share, all of it, or all or nothing.
    """
    input_alphas = {name: [0.0, 0.5, 0.05] for name in NAMES}
    input_alphas[PIXELS] = [1000.0, 0.5, 0.05]
    input_alphas["caption"] = [0.0, 0.5, 5.0]
    # Less of what is long, noisy and dear (its head has 4,608 rows): values of colours and numbers.
    shares = {"color_palette": 0.15, "metadata": 0.2, "det": 0.3, "feature_global": 0.2}
    target_alphas = {name: [shares.get(name, 0.5)] * 3 for name in TARGETS}
    target_alphas["caption"] = [0.5, 0.5, 0.0]
    keep = {name: ["random", "random", "random"] for name in TEXT}
    keep["caption"] = ["random", "random", "all"]
    keep["color_palette"] = ["binary", "binary", "binary"]
    return {
        "input_alphas": input_alphas,
        "target_alphas": target_alphas,
        "keep": keep,
        "weights": [0.6, 0.25, 0.15],
        "input_range": (64, 64),
        "target_range": (96, 96),
    }
