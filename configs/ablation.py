"""What matters on the embedded scenes: the small trunk of configs/scenes.py, one choice changed.

    python -m experiments.sweep --config=configs/ablation.py --workdir=runs/ablation

Reads the token shards of `make quickstart`. Eleven trainings of 1,100 steps (batch 16, 64 + 96
tokens, 1.9 M parameters), two minutes each on 2 CPU cores; `runlocal` takes four steps each.
"""

from typing import Any

import ml_collections

from configs import scenes
from fourm_jax.utils import config as config_lib

NUM_STEPS = 1_100


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config that all points start from.

    Arguments: data (folder of token shards), runlocal (random data and a handful of steps).
    """
    args = config_lib.parse_arg(arg, data="runs/quickstart/data", runlocal=False)
    if args.runlocal:
        return scenes.get_config("size=nano,runlocal")
    changes = {"num_steps": NUM_STEPS, "log_every": 50, "eval_every": NUM_STEPS}
    return config_lib.override(scenes.get_config(f"size=nano,data={args.data}"), changes)


def sweep() -> list[dict[str, Any]]:
    """Return the points: the config itself, then one change each."""
    return [
        {},
        {"masking.num_inputs": 32},
        {"masking.num_inputs": 128},
        {"masking.budget": "reference"},
        {"model.encoder_depth": 2, "model.decoder_depth": 3},
        {"model.encoder_depth": 4, "model.decoder_depth": 1},
        {"model.qk_norm": True},
        {"model.positions": "sincos"},
        {"model.positions": "learned"},
        {"loss": "mod"},
        {"loss": "token"},
    ]
