"""Tokenizers of 224-pixel pictures: ViTs with patches of 16 pixels, as many codes as published.

Global batch 64, 8 + 8 blocks of width 512, 54 M parameters, bfloat16: meant for a GPU or TPU.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import trunk

LOCAL_CODES = 16  # of a tokenizer of `runlocal`
SIDE = {"dim": 512, "depth": 8, "num_heads": 8, "dtype": "bfloat16"}
SMALL_SIDE = {"dim": 32, "depth": 1, "num_heads": 2, "dtype": "float32"}


def make(
    name: str,
    signal: Mapping[str, Any],
    loss: str,
    data: Mapping[str, Any],
    *,
    source_field: str,
    num_codes: int,
    num_steps: int = 0,
    runlocal: bool = False,
) -> ml_collections.ConfigDict:
    """Return the config of one tokenizer.

    Args:
      signal: fields of `tokenizers.signal.Signal`.
      loss: name in `ops.reconstruction.LOSSES`.
      data: name, source and arguments of the raw records.
      source_field: of the records.
      num_codes: of the codebook.
      num_steps: default 100,000.
      runlocal: four steps of a small model of 32-pixel pictures.
    """
    side = SMALL_SIDE if runlocal else SIDE
    config = ml_collections.ConfigDict()
    config.task = "tokenizer"
    config.seed = 0
    config.batch_size = 8 if runlocal else 64
    config.num_steps = 4 if runlocal else num_steps or 100_000
    config.log_every = 2 if runlocal else 100
    config.checkpoint_every = 2_000
    config.checkpoint_minutes = 0.0
    config.keep_checkpoints = 2
    config.eval_every = 0
    config.max_left_out_records = 0
    config.num_threads, config.num_workers = 1, 0  # that read batches; 0 workers: in this process
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.tokenizer = {
        "family": "vqvae",
        "name": name,
        "source_field": source_field,
        "arguments": {
            "signal": dict(signal),
            "loss": loss,
            "image_size": 32 if runlocal else 224,
            "patch_size": 16,
            "num_codes": LOCAL_CODES if runlocal else num_codes,
            "latent_dim": 8 if runlocal else 32,
            "backbone": "vit",
            "encoder": dict(side),
            "decoder": dict(side),
            "quantizer": {"decay": 0.99, "normalize_latents": True, "kmeans_start": True},
        },
    }
    warmup_steps = 2 if runlocal else min(2_000, config.num_steps // 10)
    config.optimizer = trunk.adamw(1e-4, warmup_steps=warmup_steps, ema_decay=0.999)
    config.data = (ml_collections.ConfigDict(data),)
    return config.lock()
