"""Distil global features into a trained model: more of the pictures that it looks at, less paint.

    python -m experiments.train --config=configs/finetune/distil.py:source=runs/quickstart \
        --workdir=runs/distilled/trunk \
        --evals=distillation --option=distillation.label=det.classes.0

The quickstart spends four of its 96 targets on the vector of a picture, in a third of its samples.
Here `share` of the samples see the picture and are asked for that vector and for the classes of
its pixels, which tell the shapes that the vector counts; the others follow the old masks, so that
nothing is forgotten. `weight` is that of the vector's four tokens in the loss. With source=scratch
a model that does this from its first step.
"""

from typing import Any

import ml_collections

from configs import scenes
from configs.data import scenes as scenes_data
from fourm_jax.utils import config as config_lib

SCRATCH = "scratch"
VECTOR, HELPER = "feature_global", "tok_semseg"


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config.

    Arguments: source (run folder, or "scratch"), data (folder of token shards), size (of
    configs/scenes.py), steps, lr, share, weight, runlocal (random data, a few steps).
    """
    args = config_lib.parse_arg(
        arg,
        source="runs/quickstart",
        data="runs/quickstart/data",
        size="nano",
        steps=2_000,
        lr=1e-3,
        share=0.7,
        weight=4.0,
        runlocal=False,
    )
    if not 0 < args.share <= 1:
        raise ValueError(f"share {args.share}, allowed: 0 < x <= 1")
    own = "size=nano,runlocal" if args.runlocal else f"size={args.size},data={args.data}"
    config = scenes.get_config(own)
    with config.unlocked():
        config.data[0].mixture = looking(config.data[0].mixture.to_dict(), args.share)
        config.loss_weights = {VECTOR: args.weight}
        if args.source != SCRATCH:
            config.init = {"source": args.source}
        if not args.runlocal:
            config.num_steps, config.checkpoint_every = args.steps, 0
            config.optimizer.lr = args.lr
    return config


def looking(mixture: dict[str, Any], share: float) -> dict[str, Any]:
    """A mixture of kinds, and so many samples from the picture to its vector and its classes."""
    seen, wanted = {scenes_data.PIXELS: 1.0}, {VECTOR: 10.0, HELPER: 10.0}
    weights = [(1 - share) * weight for weight in mixture["weights"]]  # they sum to one
    keep = {n: k if isinstance(k, str) else [*k, "random"] for n, k in mixture["keep"].items()}
    return {
        **mixture,
        "input_alphas": {n: [*a, seen.get(n, 0.0)] for n, a in mixture["input_alphas"].items()},
        "target_alphas": {n: [*a, wanted.get(n, 0.0)] for n, a in mixture["target_alphas"].items()},
        "keep": keep,
        "weights": [*weights, share],
        "input_range": [*mixture["input_range"], (64, 64)],
        "share_leftover": [*mixture["share_leftover"], True],
    }
