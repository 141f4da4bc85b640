"""Any-to-any model of the embedded 3-D scenes: the quickstart's trunk, and a larger one.

    python -m experiments.train --config=configs/scenes.py:size=nano --workdir=runs/quickstart/trunk

It reads the token shards that `make quickstart` writes to runs/quickstart/data (or
`python -m experiments.tokenize_dataset`). Global batch and tokens are stated per size below.

| size  | parameters | global batch | tokens in + out | steps | hardware    | time   |
|-------|------------|--------------|-----------------|-------|-------------|--------|
| nano  | 1.9 M      | 16           | 64 + 96         | 4,400 | 2 CPU cores | 8 min  |
| small | 6.0 M      | 16           | 64 + 128        | 10,000| 2 CPU cores | 60 min |
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import datasets
from configs.data import scenes as scenes_data
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

INPUTS = scenes_data.NAMES
OUTPUTS = scenes_data.TARGETS

SIZES: dict[str, dict[str, Any]] = {
    "nano": {
        "model": {"dim": 96, "encoder_depth": 3, "decoder_depth": 2, "num_heads": 2},
        "num_steps": 4_400,
        "num_targets": 96,
        "lr": 2e-3,
        "warmup_steps": 200,
    },
    "small": {
        "model": {"dim": 192, "encoder_depth": 4, "decoder_depth": 3, "num_heads": 3},
        "num_steps": 10_000,
        "num_targets": 128,
        "lr": 1e-3,
        "warmup_steps": 500,
    },
}
# What `runlocal` changes: small enough for any laptop to run it in a minute.
LOCAL: dict[str, Any] = {
    "model": {"dim": 32, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2, "scan_unroll": 1},
    "num_steps": 4,
    "batch_size": 8,
    "warmup_steps": 2,
    "log_every": 2,
    "checkpoint_every": 2,
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; `arg` is e.g. "size=small", "size=nano,runlocal" (two tiny minutes).

    Arguments: size ("nano", "small"), data (folder of token shards), runlocal (random data and a
    handful of steps: checks that everything runs, learns nothing).
    """
    args = config_lib.parse_arg(arg, size="nano", data="runs/quickstart/data", runlocal=False)
    data = scenes_data.tokens(args.data)
    if args.runlocal:
        mixture = scenes_data.mixture()
        data = datasets.fake_tokens("scenes", INPUTS, mixture, family="scenes", num_records=64)
    return of_size(args.size, data, args.runlocal)


def of_size(
    size: str, data: ml_collections.ConfigDict, runlocal: bool = False
) -> ml_collections.ConfigDict:
    """Return the trunk of a size on `data`."""
    if size not in SIZES:
        raise ValueError(errors.unknown_value("size", size, SIZES))
    settings = {**SIZES[size], **(LOCAL if runlocal else {})}
    return trunk(family="scenes", inputs=INPUTS, outputs=OUTPUTS, data=data, **settings)


def trunk(
    *,
    family: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    data: ml_collections.ConfigDict,
    model: dict[str, int],
    num_steps: int,
    num_targets: int,
    lr: float,
    warmup_steps: int,
    overrides: Mapping[str, Any] | None = None,
    batch_size: int = 16,
    log_every: int = 50,
    checkpoint_every: int = 1_000,
) -> ml_collections.ConfigDict:
    """Return the config of a small trunk: every value that a run depends on."""
    config = ml_collections.ConfigDict()
    config.task = "fourm"
    config.seed = 0
    config.batch_size = batch_size
    config.num_steps = num_steps
    config.log_every = log_every
    config.checkpoint_every = checkpoint_every
    config.keep_checkpoints = 2
    config.eval_every = 0
    config.max_bad_records = 0
    config.dtype = "float32"
    config.loss = "token"
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.modalities = {
        "family": family,
        "inputs": inputs,
        "outputs": outputs,
        "overrides": dict(overrides or {}),
    }
    config.model = {
        "mlp": "swiglu",
        "mlp_dim": 0,
        "use_bias": False,
        "qk_norm": False,
        "num_registers": 0,
        "tie_heads": True,
        "positions": "learned",
        "drop_path": 0.0,
        "remat": "none",
        "scan_unroll": 4,
        **model,
    }
    config.masking = {
        "num_inputs": 64,
        "num_targets": num_targets,
        "budget": "fill",
        "maskings_per_record": 1,
    }
    config.optimizer = {
        "name": "adamw",
        "lr": lr,
        "weight_decay": 0.05,
        "b1": 0.9,
        "b2": 0.95,
        "eps": 1e-8,
        "clip_norm": 1.0,
        "schedule": "cosine",
        "warmup_steps": warmup_steps,
        "cooldown_steps": 0,
        "min_lr": 0.0,
        "ema_decay": 0.0,
    }
    config.data = (data,)
    return config.lock()
