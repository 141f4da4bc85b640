"""Any-to-any model of the embedded 3-D scenes: the quickstart's trunk, and a larger one.

    python -m experiments.train --config=configs/scenes.py:size=nano --workdir=runs/quickstart/trunk

It reads the token shards that `make quickstart` writes to runs/quickstart/data (or
`python -m experiments.tokenize_dataset`). Global batch and tokens are stated per size below.

| size  | parameters | global batch | tokens in + out | steps | hardware    | time   |
|-------|------------|--------------|-----------------|-------|-------------|--------|
| nano  | 1.9 M      | 16           | 64 + 96         | 4,400 | 2 CPU cores | 8 min  |
| small | 6.0 M      | 16           | 64 + 128        | 10,000| 2 CPU cores | 60 min |
"""

import ml_collections

from configs.data import scenes as scenes_data
from fourm_jax.utils import config as config_lib

INPUTS = scenes_data.NAMES
OUTPUTS = scenes_data.TARGETS

SIZES = {
    "nano": {
        "model": {"dim": 96, "encoder_depth": 3, "decoder_depth": 2, "num_heads": 2},
        "num_steps": 4_400, "batch_size": 16, "num_targets": 96, "lr": 2e-3, "warmup_steps": 200,
    },
    "small": {
        "model": {"dim": 192, "encoder_depth": 4, "decoder_depth": 3, "num_heads": 3},
        "num_steps": 10_000, "batch_size": 16, "num_targets": 128, "lr": 1e-3, "warmup_steps": 500,
    },
}  # fmt: skip


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; `arg` is e.g. "size=small", "size=nano,runlocal" (two tiny minutes).

    Arguments: size ("nano", "small"), data (folder of token shards), runlocal (random data and a
    handful of steps: checks that everything runs, learns nothing).
    """
    args = config_lib.parse_arg(arg, size="nano", data="runs/quickstart/data", runlocal=False)
    if args.size not in SIZES:
        raise ValueError(f"size {args.size!r}, allowed: {sorted(SIZES)}")
    size = SIZES[args.size]
    config = ml_collections.ConfigDict()
    config.task = "fourm"
    config.seed = 0
    config.batch_size = size["batch_size"]
    config.num_steps = size["num_steps"]
    config.log_every = 50
    config.checkpoint_every = 1_000
    config.keep_checkpoints = 2
    config.eval_every = 0
    config.max_bad_records = 0
    config.dtype = "float32"
    config.loss = "token"
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.modalities = {
        "family": "scenes", "inputs": INPUTS, "outputs": OUTPUTS, "overrides": {},
    }  # fmt: skip
    config.model = {
        **size["model"],
        "mlp": "swiglu", "mlp_dim": 0, "use_bias": False, "qk_norm": False, "num_registers": 0,
        "tie_heads": True, "positions": "learned", "drop_path": 0.0, "remat": "none",
        "scan_unroll": 4,
    }  # fmt: skip
    config.masking = {
        "num_inputs": 64, "num_targets": size["num_targets"], "budget": "fill",
        "maskings_per_record": 1,
    }  # fmt: skip
    config.optimizer = {
        "name": "adamw", "lr": size["lr"], "weight_decay": 0.05, "b1": 0.9, "b2": 0.95,
        "eps": 1e-8, "clip_norm": 1.0, "schedule": "cosine", "warmup_steps": size["warmup_steps"],
        "cooldown_steps": 0, "min_lr": 0.0, "ema_decay": 0.0,
    }  # fmt: skip
    config.data = (scenes_data.get_config(args.data),)
    if args.runlocal:
        runlocal(config)
    return config.lock()


def runlocal(config: ml_collections.ConfigDict) -> None:
    """Let `config` run in a minute on any laptop, in place, on random tokens."""
    shrink(config)
    family, names = config.modalities.family, config.modalities.inputs
    config.data[0].source = "fake"
    config.data[0].arguments = {"family": family, "names": names, "num_records": 64}


def shrink(config: ml_collections.ConfigDict) -> None:
    """Make `config` small enough, in place, for any laptop to run it in a minute."""
    config.num_steps = 4
    config.batch_size = 8
    config.log_every = 2
    config.checkpoint_every = 2
    config.optimizer.warmup_steps = 2
    config.model.update(
        {"dim": 32, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2, "scan_unroll": 1}
    )
