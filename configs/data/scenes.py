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
    """Five kinds of samples: what is seen, how often, and how much of it.

    Dirichlet concentrations per modality and kind (docs/published.md#mixtures); `keep` says how
    much of a sequence may be seen: a random share, all of it, or all or nothing. As in generation,
    a caption is seen alone or with a part of the picture, and its targets are nearly all of that
    picture: with other tokens in its empty slots, or its targets divided evenly, the trunk hardly
    learned to tie words to places. Samples that see nothing are what guidance compares with.
    """
    # Less of what is long, noisy and dear (its head has 4,608 rows): values of colours and numbers.
    shares = {"color_palette": 0.15, "metadata": 0.2, "det": 0.3, "feature_global": 0.2}
    everything = {name: shares.get(name, 0.5) for name in TARGETS}
    picture = {"tok_rgb": 10.0, "tok_semseg": 1.0, "det": 1.0, "color_palette": 0.5}
    caption = {"caption": 1.0}
    kinds = (  # weight, inputs, fewest and most of them, only those?, targets
        (0.58, {PIXELS: 1.0}, (64, 64), False, everything),
        (0.16, dict.fromkeys(NAMES, 0.5), (64, 64), False, everything),
        (0.13, caption, (64, 64), True, picture),
        (0.10, {"caption": 10.0, "tok_rgb": 0.5}, (16, 64), True, picture),
        (0.03, caption, (0, 0), True, everything),
    )
    weights, inputs, input_ranges, only, targets = zip(*kinds, strict=True)
    keep = dict.fromkeys(TEXT, "random")
    keep["caption"] = ["random", "random", "all", "all", "random"]
    keep["color_palette"] = "binary"
    return {
        "input_alphas": {name: [kind.get(name, 0.0) for kind in inputs] for name in NAMES},
        "target_alphas": {name: [kind.get(name, 0.0) for kind in targets] for name in TARGETS},
        "keep": keep,
        "weights": weights,
        "input_range": input_ranges,
        "target_range": (96, 96),
        "share_leftover": [not alone for alone in only],
    }
