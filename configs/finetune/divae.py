"""A diffusion decoder for the tokens of a trained VQ-VAE of pictures.

    python -m experiments.train --config=configs/finetune/divae.py:source=runs/rgb --workdir=DIR

The encoder and the codebook are those of `source` (a run or the tokenizer of a config made with
configs/tokenizers/vit.py) and stay as they are, so that every token means what it meant; with
`train=all` they learn on. Pictures as in configs/data/pictures.py. Global batch 64, 100,000 steps;
meant for a GPU or TPU, no run of it is recorded yet.
"""

from typing import Any

import ml_collections

from configs import datasets
from configs.data import pictures
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

TOKENS = "^(encoder|to_latent|codebook)/"  # what decides the tokens
FREEZE = {"decoder": TOKENS, "all": ""}
DECODER: dict[str, Any] = {
    "channels": (128, 256),
    "blocks_per_level": 2,
    "dim": 512,
    "depth": 8,
    "num_heads": 8,
    "patch_size": 4,
    "num_groups": 32,
    "grid": 28,
    "dropout": 0.1,
}
LOCAL_DECODER: dict[str, Any] = {
    "channels": (8,),
    "blocks_per_level": 1,
    "dim": 16,
    "depth": 1,
    "num_heads": 2,
    "patch_size": 2,
    "num_groups": 4,
    "grid": 16,
    "dropout": 0.1,
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; arguments: source, raw (built pictures), train ("decoder", "all")."""
    args = config_lib.parse_arg(
        arg, source="runs/rgb", raw="runs/pictures/raw", train="decoder", runlocal=False
    )
    if args.train not in FREEZE:
        raise ValueError(errors.unknown_value("train", args.train, FREEZE))
    raw = args.raw if datasets.exist(args.raw) or not args.runlocal else ""
    config = pictures.tokenizer("rgb", "base", raw, runlocal=args.runlocal).to_dict()
    given = config["tokenizer"]["arguments"]
    kept = ("signal", "image_size", "patch_size", "num_codes", "latent_dim", "encoder", "quantizer")
    config["tokenizer"] |= {
        "family": "divae",
        "arguments": {
            **{name: given[name] for name in kept},
            "decoder_type": "uvit",
            "decoder": LOCAL_DECODER if args.runlocal else DECODER,
        },
    }
    config["init"] = {"source": args.source, "reset": "^decoder/", "freeze": FREEZE[args.train]}
    return ml_collections.ConfigDict(config).lock()
