"""Configs of runs that compile and train in seconds, on fake data."""

import ml_collections

from fourm_jax.utils import config as config_lib


def tokenizer(**overrides) -> ml_collections.ConfigDict:
    """A patch-MLP tokenizer of 32-pixel pictures; `overrides` by dotted key, "__" for "."."""
    config = _common()
    config.task = "tokenizer"
    config.tokenizer = {
        "family": "vqvae",
        "name": "rgb",
        "source_field": "rgb",
        "arguments": {
            "signal": {"dtype": "uint8", "num_channels": 3, "low": 0, "high": 255, "std": 255.0},
            "image_size": 32,
            "patch_size": 8,
            "num_codes": 16,
            "latent_dim": 4,
            "backbone": "patch_mlp",
            "encoder": {"dim": 16, "depth": 1},
            "decoder": {"dim": 16, "depth": 1},
        },
    }
    config.data = (
        {
            "name": "fake",
            "source": "fake",
            "arguments": {"names": ("rgb",)},
            "fields": {"rgb": "rgb"},
            "weight": 1.0,
        },
    )
    return _override(config, overrides)


def trunk(**overrides) -> ml_collections.ConfigDict:
    """A trunk over pixels, one grid and captions."""
    config = _common()
    config.task = "fourm"
    config.dtype = "float32"
    config.loss = "token"
    names = ("rgb", "tok_depth", "caption")
    config.modalities = {
        "family": "scenes",
        "inputs": names,
        "outputs": names[1:],
        "overrides": {},
    }
    config.model = {
        "dim": 16,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "num_heads": 2,
        "mlp_dim": 32,
    }
    config.masking = {"num_inputs": 16, "num_targets": 12, "maskings_per_record": 1}
    ones = dict.fromkeys(names, 1.0)
    config.data = (
        {
            "name": "fake",
            "source": "fake",
            "arguments": {"names": names},
            "fields": {name: name for name in names},
            "weight": 1.0,
            "mixture": {"input_alphas": ones, "target_alphas": dict.fromkeys(names[1:], 1.0)},
        },
    )
    return _override(config, overrides)


def _common() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.batch_size = 8
    config.num_steps = 6
    config.log_every = 2
    config.checkpoint_every = 0
    config.keep_checkpoints = 2
    config.eval_every = 0
    config.evals = {}
    config.max_left_out_records = 0
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.optimizer = {
        "name": "adamw",
        "lr": 1e-2,
        "schedule": "constant",
        "warmup_steps": 0,
        "cooldown_steps": 0,
        "clip_norm": 1.0,
        "ema_decay": 0.9,
    }
    return config


def _override(config: ml_collections.ConfigDict, overrides: dict) -> ml_collections.ConfigDict:
    named = {key.replace("__", "."): value for key, value in overrides.items()}
    return config_lib.override(config, named)
