"""Tokenizers of the rendered scenes, one per signal: 32 px, an 8 x 8 grid of 256 codes.

    python -m experiments.train --config=configs/tokenizers/scenes.py:depth --workdir=runs/depth

Reads the raw scenes that `make quickstart` writes to runs/quickstart/raw; `data=` names another
folder, `data=render` renders on the way. Global batch 32 (64 for the vector), 0.12 M parameters
(0.6 M), 8-11 seconds of one CPU core each. Errors on 256 held-out scenes after training on 4,096:

| name           | error                      | relative to a constant |
|----------------|----------------------------|------------------------|
| rgb            | 23.7 dB PSNR               |                        |
| depth          | 0.13 m                     | 0.12 x per-pixel mean  |
| normal         | 4.9 degrees                | 0.19 x per-pixel mean  |
| semseg         | 0.95 mIoU                  |                        |
| edge           | 0.92 F1                    |                        |
| feature        | 88 % of variance explained |                        |
| feature_global | 78 % of variance explained | 4 codes of 64          |
"""

import ml_collections

from fourm_jax.modalities import registry
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

# signal: see tokenizers.signal.Signal; means and deviations are of the training scenes.
SIGNALS = {
    "rgb": {
        "dtype": "uint8", "num_channels": 3, "low": 0.0, "high": 255.0, "mean": 127.5, "std": 64.0,
    },
    "depth": {"axes": "hw", "low": 0.5, "high": 10.0, "mean": 5.85, "std": 3.0},
    "normal": {"num_channels": 3, "low": -1.0, "high": 1.0, "std": 0.5, "unit": True},
    "semseg": {"axes": "hw", "dtype": "uint8", "kind": "classes", "num_classes": 6},
    "edge": {"axes": "hw", "dtype": "uint8", "kind": "binary", "low": 0.0, "high": 255.0},
    "feature": {"num_channels": 12},
    "feature_global": {"axes": "c", "num_channels": 32},
}  # fmt: skip
LOSSES = {
    "rgb": "mse", "depth": "l1", "normal": "mse", "semseg": "cross_entropy",
    "edge": "binary_cross_entropy", "feature": "smooth_l1", "feature_global": "mse",
}  # fmt: skip
NAMES = tuple(SIGNALS)
# Fields of a raw scene that tokenizers and text modalities read.
SOURCE_FIELDS = tuple(dict.fromkeys(spec.source for spec in registry.FAMILIES["scenes"]))


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; `arg` is a name, then options: "depth", "rgb,data=render,runlocal"."""
    name, _, options = (arg or NAMES[0]).partition(",")
    if name not in NAMES:
        raise ValueError(errors.unknown_value("scenes tokenizer", name, NAMES))
    args = config_lib.parse_arg(options, data="runs/quickstart/raw", runlocal=False)
    vector = SIGNALS[name].get("axes") == "c"
    config = ml_collections.ConfigDict()
    config.task = "tokenizer"
    config.seed = 0
    config.batch_size = 64 if vector else 32
    config.num_steps = 1_000 if vector else 300
    config.log_every = 50
    config.checkpoint_every = 0
    config.keep_checkpoints = 1
    config.eval_every = 0
    config.max_bad_records = 0
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.tokenizer = {
        "family": "mlp" if vector else "vqvae",
        "name": name,
        "source_field": name,
        "arguments": vector_arguments(name) if vector else image_arguments(name),
    }
    config.optimizer = {
        "name": "adamw", "lr": 3e-3, "weight_decay": 0.0, "b1": 0.9, "b2": 0.99, "eps": 1e-8,
        "clip_norm": 1.0, "schedule": "cosine", "warmup_steps": 20, "cooldown_steps": 0,
        "min_lr": 0.0, "ema_decay": 0.0,
    }  # fmt: skip
    config.data = (dataset(args.data),)
    if args.runlocal:
        shrink(config)
        config.data = (dataset("render", num_records=64),)
    return config.lock()


def shrink(config: ml_collections.ConfigDict) -> None:
    """Make `config` small enough, in place, for any laptop to run it in seconds."""
    config.num_steps, config.batch_size, config.log_every = 4, 8, 2
    config.optimizer.warmup_steps = 2


def image_arguments(name: str) -> dict:
    """Patch MLP, one token per 4 x 4 patch (per cell of the feature map)."""
    patch_size = 1 if name == "feature" else 4
    return {
        "signal": SIGNALS[name], "loss": LOSSES[name],
        "image_size": 8 * patch_size, "patch_size": patch_size,
        "num_codes": 256, "latent_dim": 16, "class_dim": 16,
        "backbone": "patch_mlp",
        "encoder": {"dim": 96, "depth": 1}, "decoder": {"dim": 96, "depth": 1},
        "quantizer": {
            "decay": 0.95, "dead_code_coefficient": 8.0, "normalize_latents": True,
            "commitment_weight": 0.25,
        },
    }  # fmt: skip


def vector_arguments(name: str) -> dict:
    """MLP around four parallel codebooks."""
    return {
        "signal": SIGNALS[name], "loss": LOSSES[name],
        "num_codes": 64, "latent_dim": 64,
        "encoder": {"dim": 128, "depth": 2}, "decoder": {"dim": 128, "depth": 2},
        "quantizer_type": "memcodes", "quantizer": {"num_heads": 4},
    }  # fmt: skip


def dataset(directory: str, **arguments) -> ml_collections.ConfigDict:
    """Raw scenes from a folder, or rendered on the way."""
    rendered = directory == "render"
    return ml_collections.ConfigDict(
        {
            "name": "raw_scenes",
            "source": "scenes" if rendered else "token_shards",
            "arguments": arguments if rendered else {"directory": directory},
        }
    )
