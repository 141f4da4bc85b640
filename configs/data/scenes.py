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
    """Four kinds of samples: pixels to all, anything to anything, caption to picture, from nothing.

    Dirichlet concentrations per modality and kind (spec page 05); `keep` says how much of a
    sequence may be seen: a random share, all of it, or all or nothing. A caption is seen alone, as
    when a picture is generated from it, and its targets are nearly all of that picture: with its
    slots divided evenly the trunk never learned to tie words to places. Samples that see nothing
    are what guidance compares with.
    """
    # Less of what is long, noisy and dear (its head has 4,608 rows): values of colours and numbers.
    shares = {"color_palette": 0.15, "metadata": 0.2, "det": 0.3, "feature_global": 0.2}
    everything = {name: shares.get(name, 0.5) for name in TARGETS}
    picture = {"tok_rgb": 10.0, "tok_semseg": 1.0, "det": 1.0, "color_palette": 0.5}
    anything = dict.fromkeys(NAMES, 0.5)
    inputs = ({PIXELS: 1.0}, anything, {"caption": 1.0}, {"caption": 1.0})
    targets = (everything, everything, picture, everything)
    keep = dict.fromkeys(TEXT, "random")
    keep["caption"] = ["random", "random", "all", "random"]
    keep["color_palette"] = "binary"
    return {
        "input_alphas": {name: [kind.get(name, 0.0) for kind in inputs] for name in NAMES},
        "target_alphas": {name: [kind.get(name, 0.0) for kind in targets] for name in TARGETS},
        "keep": keep,
        "weights": [0.58, 0.16, 0.23, 0.03],
        "input_range": ((64, 64), (64, 64), (64, 64), (0, 0)),
        "target_range": (96, 96),
    }
