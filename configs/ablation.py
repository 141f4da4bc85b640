"""What matters on the embedded scenes: the small trunk of configs/scenes.py, one choice changed.

    python -m experiments.sweep --config=configs/ablation.py --workdir=runs/ablation

Reads the tokens of `make quickstart`. Samples are masked as 4M masks them, by Dirichlets of three
concentrations, not by the scenes' own kinds of samples. 15 trainings of 500 steps (batch 16,
64 + 96 tokens, 2.0 M parameters), a good minute each on 2 CPU cores; what differs less than the
three seeds of the base is noise. Training losses of other budgets, concentrations or objectives are
of other tasks: points are compared by their loss on held-out records under the masks of the base.
`runlocal` takes four steps each.
"""

from typing import Any

import ml_collections

from configs import scenes
from fourm_jax.utils import config as config_lib

NUM_STEPS = 500
ALPHAS = (0.1, 1.0, 10.0)  # from one or two modalities at a time to a bit of everything
SLOTS = {"num_inputs": 64, "num_targets": 96, "budget": "fill"}
SHOWN = ("all", "tok_rgb", "tok_depth", "tok_semseg", "caption")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config that all points start from.

    Arguments: data (folder of token shards), runlocal (random data and a handful of steps).
    """
    args = config_lib.parse_arg(arg, data="runs/quickstart/data", runlocal=False)
    size = "size=nano,runlocal" if args.runlocal else f"size=nano,data={args.data}"
    config = scenes.get_config(size)
    weights = (1.0,) * len(ALPHAS)
    with config.unlocked():
        config.data[0].mixture = {
            "input_alphas": dict.fromkeys(scenes.INPUTS, ALPHAS),
            "target_alphas": dict.fromkeys(scenes.OUTPUTS, ALPHAS),
            "weights": weights,
        }
        config.evals = {"val_loss": {"num_records": 512, "weights": weights, **SLOTS}}
        if not args.runlocal:
            config.num_steps, config.log_every = NUM_STEPS, 50
    return config_lib.override(config, {f"masking.{key}": value for key, value in SLOTS.items()})


def sweep() -> list[dict[str, Any]]:
    """Return the points: the config itself and two more seeds of it, then one change each."""
    alone = [tuple(float(one == alpha) for one in ALPHAS) for alpha in ALPHAS]
    return [
        {},
        {"seed": 1},
        {"seed": 2},
        {"masking.num_inputs": 32},
        {"masking.num_inputs": 128},
        *({"data[0].mixture.weights": weights} for weights in alone),
        {"masking.budget": "reference"},
        {"model.encoder_depth": 2, "model.decoder_depth": 3},
        {"model.encoder_depth": 4, "model.decoder_depth": 1},
        {"model.qk_norm": True},
        {"model.positions": "sincos"},
        {"model.smooth_numbers": True},
        {"loss": "mod"},
    ]


def measures() -> tuple[str, ...]:
    """Return what the table shows beside the losses: nats per target token."""
    return tuple(f"eval/val_loss/{name}/loss" for name in SHOWN)
