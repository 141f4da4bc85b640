"""What the configs of trunks are made of: every key that a run depends on, once."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

REPLICATED = {"data": -1, "fsdp": 1, "tensor": 1}  # the mesh of models that fit on one device


def make(
    *,
    family: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    data: Sequence[ml_collections.ConfigDict],
    model: Mapping[str, Any],
    optimizer: Mapping[str, Any],
    batch_size: int,
    num_steps: int,
    num_inputs: int,
    num_targets: int,
    loss: str,
    dtype: str,
    log_every: int,
    checkpoint_every: int,
    keep_checkpoints: int,
    eval_every: int = 0,
    maskings_per_record: int = 1,
    overrides: Mapping[str, Any] | None = None,
    mesh: Mapping[str, int] = REPLICATED,
    init: Mapping[str, Any] | None = None,
) -> ml_collections.ConfigDict:
    """Return the config of a trunk.

    Args:
      family, inputs, outputs, overrides: of its modalities, see `modalities.registry.resolve`.
      data: data sets of tokens, see configs/datasets.py.
      model: of `architecture`.
      optimizer: of `adamw`.
      num_inputs, num_targets: slots of a sample; the batch counts samples.
      init: what it starts from, see `train.init.Settings`; None: from scratch.
    """
    config = ml_collections.ConfigDict()
    config.task = "fourm"
    config.seed = 0
    config.batch_size = batch_size
    config.num_steps = num_steps
    config.log_every = log_every
    config.checkpoint_every = checkpoint_every
    config.checkpoint_minutes = 0.0
    config.keep_checkpoints = keep_checkpoints
    config.keep_best = 0
    config.best_metric, config.best_is = "loss", "lowest"  # what keep_best follows
    config.eval_every = eval_every
    config.max_left_out_records = 0
    config.num_threads, config.num_workers = 1, 0  # that read batches; 0 workers: in this process
    config.dtype = dtype
    config.loss = loss
    config.loss_weights = {}
    config.z_loss = 0.0
    config.mesh = dict(mesh)
    config.modalities = {"family": family, "inputs": tuple(inputs), "outputs": tuple(outputs)}
    config.modalities.overrides = dict(overrides or {})
    config.model = dict(model)
    config.masking = {"num_inputs": num_inputs, "num_targets": num_targets, "budget": "fill"}
    config.masking.maskings_per_record = maskings_per_record
    config.optimizer = dict(optimizer)
    config.data = tuple(data)
    if init:
        config.init = dict(init)
    return config.lock()


def architecture(
    size: Mapping[str, int], *, positions: str, remat: str = "none", scan_unroll: int = 1
) -> dict[str, Any]:
    """Return the keys of `FourM` for a size: dim, encoder_depth, decoder_depth, num_heads."""
    return {
        **size,
        "mlp": "swiglu",
        "mlp_dim": 0,
        "use_bias": False,
        "qk_norm": False,
        "num_registers": 0,
        "tie_heads": True,
        "positions": positions,
        "drop_path": 0.0,
        "remat": remat,
        "scan_unroll": scan_unroll,
        "attention": "auto",
        "smooth_numbers": False,
    }


def adamw(
    lr: float,
    *,
    warmup_steps: int,
    clip_norm: float = 1.0,
    weight_decay: float = 0.05,
    b2: float = 0.95,
    ema_decay: float = 0.0,
) -> dict[str, Any]:
    """Return AdamW with a cosine schedule, of trunks and tokenizers."""
    return {
        "name": "adamw",
        "lr": lr,
        "weight_decay": weight_decay,
        "b1": 0.9,
        "b2": b2,
        "eps": 1e-8,
        "clip_norm": clip_norm,
        "schedule": "cosine",
        "warmup_steps": warmup_steps,
        "cooldown_steps": 0,
        "min_lr": 0.0,
        "ema_decay": ema_decay,
        "accumulate_steps": 1,
        "moment_dtype": "float32",
    }
