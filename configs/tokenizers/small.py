"""Small tokenizers of the scenes and the digits: seconds of training on one CPU core each.

Of maps: an 8 x 8 grid, mostly of 256 codes, 0.12 M parameters; of vectors: 4 of 64 codes, 0.6 M.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import trunk


def make(
    name: str,
    signal: Mapping[str, Any],
    loss: str,
    data: Mapping[str, Any],
    *,
    source_field: str = "",
    patch_size: int = 4,
    grid: int = 8,
    num_codes: int = 256,
    dim: int = 96,
    num_steps: int = 0,
    euclidean: bool = False,
    runlocal: bool = False,
) -> ml_collections.ConfigDict:
    """Return the config of one tokenizer.

    Args:
      name: of the tokenizer.
      signal: fields of `tokenizers.signal.Signal`; a vector has axes "c".
      loss: name in `ops.reconstruction.LOSSES`.
      data: name, source and arguments of the raw records.
      source_field: of the records, which the tokenizer reads; default: its name.
      patch_size, grid: pixels per token, and tokens per side.
      num_codes, dim: of the codebook and of the layers of maps.
      num_steps: default 300, for vectors 1,000.
      euclidean: whether codes of maps differ in length too, and not in direction alone.
      runlocal: four steps of eight.
    """
    vector = signal.get("axes") == "c"
    arguments = (
        _vector(signal, loss) if vector else _image(signal, loss, patch_size, grid, num_codes, dim)
    )
    if euclidean:
        arguments["quantizer"] |= {"metric": "euclidean", "normalize_latents": False}
    config = ml_collections.ConfigDict()
    config.task = "tokenizer"
    config.seed = 0
    config.batch_size = 8 if runlocal else 64 if vector else 32
    config.num_steps = 4 if runlocal else num_steps or (1_000 if vector else 300)
    config.log_every = 2 if runlocal else 50
    config.checkpoint_every = 0
    config.checkpoint_minutes = 0.0
    config.keep_checkpoints = 1
    config.eval_every = 0
    config.max_left_out_records = 0
    config.num_threads, config.num_workers = 1, 0  # that read batches; 0 workers: in this process
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.tokenizer = {
        "family": "mlp" if vector else "vqvae",
        "name": name,
        "source_field": source_field or name,
        "arguments": arguments,
    }
    warmup_steps = 2 if runlocal else 20
    config.optimizer = trunk.adamw(3e-3, warmup_steps=warmup_steps, weight_decay=0.0, b2=0.99)
    config.data = (ml_collections.ConfigDict(data),)
    return config.lock()


def _image(
    signal: Mapping[str, Any], loss: str, patch_size: int, grid: int, num_codes: int, dim: int
) -> dict[str, Any]:
    """Patch MLP, one token per patch."""
    return {
        "signal": dict(signal),
        "loss": loss,
        "image_size": grid * patch_size,
        "patch_size": patch_size,
        "num_codes": num_codes,
        "latent_dim": 16,
        "class_dim": 16,
        "backbone": "patch_mlp",
        "encoder": {"dim": dim, "depth": 1},
        "decoder": {"dim": dim, "depth": 1},
        "quantizer": {
            "decay": 0.95,
            "dead_code_coefficient": 8.0,
            "normalize_latents": True,
            "commitment_weight": 0.25,
        },
    }


def _vector(signal: Mapping[str, Any], loss: str) -> dict[str, Any]:
    """MLP around four parallel codebooks."""
    return {
        "signal": dict(signal),
        "loss": loss,
        "num_codes": 64,
        "latent_dim": 64,
        "encoder": {"dim": 128, "depth": 2},
        "decoder": {"dim": 128, "depth": 2},
        "quantizer_type": "memcodes",
        "quantizer": {"num_heads": 4},
    }
