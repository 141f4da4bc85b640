"""Do more modalities cost the others? The table that 4M-21 argues with, on scenes.

    python -m experiments.sweep --config=configs/modality_table.py --workdir=runs/modality_table
    python -m experiments.compare runs/modality_table/* --output=runs/compared_modalities

The trunk of configs/scenes.py with all 12 modalities, and with the 7 of 4M (and pixels), at equal
steps (1,000), batch (16) and tokens (96 + 96), three seeds each; 2.0 M parameters, about four
minutes of one CPU core per training. Each ends with the same tasks on 256 held-out scenes. Reads
tokens and tokenizers of `make quickstart`; `data=DIR,tokenizers=DIR` name others. `runlocal` takes
four steps each, without the tasks.

Expected, as published for the larger models: no task gets worse with more modalities.
"""

from typing import Any

import ml_collections

from configs import scenes
from fourm_jax.utils import config as config_lib

SEVEN = ("tok_rgb", "tok_depth", "tok_normal", "tok_semseg", "tok_feature", "caption", "det")
TASKS = ("tok_depth", "tok_normal", "tok_semseg", "caption")
SEEDS = (0, 1, 2)
MEASURES = (
    "eval/val_loss/all/loss",
    "eval/any_to_any/rgb->tok_depth/mae",
    "eval/any_to_any/rgb->tok_normal/mean_angular_error_deg",
    "eval/any_to_any/rgb->tok_semseg/miou",
    "eval/any_to_any/rgb->caption/colour_shape_accuracy",
)


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config that all points start from.

    Arguments: data, tokenizers (folders of the quickstart), steps, runlocal (random data, a few
    steps).
    """
    args = config_lib.parse_arg(
        arg,
        data="runs/quickstart/data",
        tokenizers="runs/quickstart/tokenizers",
        steps=1_000,
        runlocal=False,
    )
    if args.runlocal:
        return scenes.get_config("size=nano,runlocal")
    config = scenes.get_config(f"size=nano,data={args.data}")
    with config.unlocked():
        tasks = {"targets": TASKS, "tokenizers": args.tokenizers, "num_records": 256}
        config.num_steps, config.checkpoint_every = args.steps, 0
        config.evals = {"val_loss": {"num_records": 256}, "any_to_any": tasks}
    return config


def sweep() -> list[dict[str, Any]]:
    """Return the points: 12 and 7 modalities, three seeds each."""
    seven = {"modalities.inputs": ("rgb", *SEVEN), "modalities.outputs": SEVEN}
    return [{**own, "seed": seed} for own in ({}, seven) for seed in SEEDS]


def measures() -> tuple[str, ...]:
    """Return what the table shows beside the losses."""
    return MEASURES
