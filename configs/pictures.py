"""Any-to-any model of your own pictures: pixels, tokens, edges, captions, palettes, metadata.

    python -m experiments.train --config=configs/pictures.py:size=small --workdir=runs/mine

Reads what `experiments.tokenize_dataset` with configs/data/pictures.py:tokenize wrote to
runs/pictures/data (`data=` names another folder). Sizes are those of the published models, from
"tiny" (25 M parameters without embeddings) to "xlarge"; global batch 256, 128 + 128 tokens,
bfloat16: meant for a GPU or TPU. No run of it is recorded yet; `,runlocal` tries it.
"""

from typing import Any

import ml_collections

from configs import datasets, fourm, mixtures
from configs.data import pictures
from fourm_jax.models import sizes
from fourm_jax.utils import config as config_lib

OUTPUTS = tuple(name for name in pictures.MODALITIES if name != "rgb@224")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; arguments: size (`models.sizes`), data (folder of shards), runlocal."""
    args = config_lib.parse_arg(arg, size="tiny", data="runs/pictures/data", runlocal=False)
    mixture = datasets.only(mixtures.mod21(), pictures.MODALITIES)
    values: dict[str, Any] = {
        "size": sizes.get(args.size),
        "lr": 5e-4,
        "clip_norm": 3.0,
        "warmup_steps": 5_000,
        "num_steps": 100_000,
        "batch_size": 256,
        "num_tokens": 128,
        "maskings_per_record": 4,
        "eval_every": 2_000,  # loss on the pictures that `build_data` holds out
    }
    data = (datasets.tokens("pictures", pictures.MODALITIES, mixture, data=args.data),)
    return fourm.make(pictures.MODALITIES, OUTPUTS, data, values, runlocal=args.runlocal)
