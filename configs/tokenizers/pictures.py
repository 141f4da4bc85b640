"""Tokenizers of your own pictures: 224 px, 16 px patches, ViTs, as many codes as published.

    python -m experiments.train --config=configs/tokenizers/pictures.py:rgb --workdir=runs/rgb

Reads what `experiments.build_data` wrote to runs/pictures/raw (`data=` names another folder) and
leaves the tokenizer in runs/rgb/tokenizer. Global batch 64, 8 + 8 blocks of width 512, 54 M
parameters, bfloat16: meant for a GPU or TPU. No run of it is recorded yet; `,runlocal` tries it
with a small model on the scanned digits.
"""

import ml_collections

from configs.tokenizers import scenes
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

FIELDS = {"rgb": "rgb", "edge": "canny_edge"}
NUM_CODES = {"rgb": 16_384, "edge": 8_192}  # of tok_rgb@224 and tok_canny_edge@224
SIDE = {"dim": 512, "depth": 8, "num_heads": 8, "dtype": "bfloat16"}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; `arg` is a name, then options: "edge", "rgb,data=DIR,runlocal"."""
    name, _, options = (arg or "rgb").partition(",")
    if name not in FIELDS:
        raise ValueError(errors.unknown_value("pictures tokenizer", name, FIELDS))
    args = config_lib.parse_arg(options, data="runs/pictures/raw", runlocal=False)
    config = ml_collections.ConfigDict()
    config.task = "tokenizer"
    config.seed = 0
    config.batch_size = 64
    config.num_steps = 100_000
    config.log_every = 100
    config.checkpoint_every = 2_000
    config.keep_checkpoints = 2
    config.eval_every = 0
    config.max_bad_records = 0
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.tokenizer = {
        "family": "vqvae",
        "name": name,
        "source_field": FIELDS[name],
        "arguments": {
            "signal": scenes.SIGNALS[name], "loss": scenes.LOSSES[name],
            "image_size": 224, "patch_size": 16,
            "num_codes": NUM_CODES[name], "latent_dim": 32, "backbone": "vit",
            "encoder": dict(SIDE), "decoder": dict(SIDE),
            "quantizer": {"decay": 0.99, "normalize_latents": True, "kmeans_start": True},
        },
    }  # fmt: skip
    config.optimizer = {
        "name": "adamw", "lr": 1e-4, "weight_decay": 0.05, "b1": 0.9, "b2": 0.95, "eps": 1e-8,
        "clip_norm": 1.0, "schedule": "cosine", "warmup_steps": 2_000, "cooldown_steps": 0,
        "min_lr": 0.0, "ema_decay": 0.999,
    }  # fmt: skip
    crops = {"image_size": 224, "fields": (FIELDS[name],), "num_crops": 4}
    source = {"source": "picture_crops", "arguments": {"directory": args.data, **crops}}
    config.data = (ml_collections.ConfigDict({"name": "pictures", **source}),)
    if args.runlocal:
        runlocal(config)
    return config.lock()


def runlocal(config: ml_collections.ConfigDict) -> None:
    """Let `config` run on any laptop, in place: a small model of the digits."""
    scenes.shrink(config)
    config.tokenizer.source_field = config.tokenizer.name  # as the digits call it
    arguments = config.tokenizer.arguments
    arguments.update({"image_size": 32, "num_codes": 16, "latent_dim": 8})
    for side in (arguments.encoder, arguments.decoder):
        side.update({"dim": 32, "depth": 1, "num_heads": 2, "dtype": "float32"})
    digits = {"name": "digits", "source": "digits", "arguments": {"image_size": 32}}
    config.data = (ml_collections.ConfigDict(digits),)
