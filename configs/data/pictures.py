"""Your own pictures: pixels, edges, palette, metadata and captions, several crops of each.

python -m experiments.build_data --images=DIR --output=runs/pictures/raw
python -m experiments.train --config=configs/data/pictures.py:tokenizer=rgb --workdir=runs/rgb
python -m experiments.tokenize_dataset --config=configs/data/pictures.py:tokenize --split=train \
    --tokenizers=DIR --output=runs/pictures/data

DIR holds the tokenizers `rgb`, `edge` (see configs/tokenizers/vit.py) and `text`. With labels of
models in the raw data, add their modalities (tok_depth@224, det, …) to MODALITIES.
"""

import ml_collections

from configs import datasets, mixtures
from configs.tokenizers import signals, vit
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

MODALITIES = (
    *("rgb@224", "tok_rgb@224", "tok_canny_edge@224"),
    *("caption", "color_palette", "metadata"),
)
# Name of a tokenizer: the record field, its signal, loss and number of codes (as published).
TOKENIZERS = {
    "rgb": ("rgb", signals.RGB, "mse", 16_384),
    "edge": ("canny_edge", signals.EDGE, "binary_cross_entropy", 8_192),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the tokens as a data set; arguments: data (folder of shards), weight, runlocal.

    With raw (folder of the built data set): tokenize, num_crops; tokenizer (rgb, edge).
    """
    args = config_lib.parse_arg(
        arg,
        data="runs/pictures/data",
        raw="runs/pictures/raw",
        weight=1.0,
        tokenize=False,
        num_crops=4,
        tokenizer="",
        runlocal=False,
    )
    if args.tokenize:
        crops = datasets.crops(args.num_crops, 224)
        raw = {"directory": args.raw}
        return datasets.tokenize("token_shards", raw, MODALITIES, crops=crops)
    if args.tokenizer:
        return tokenizer(args.tokenizer, args.raw, args.runlocal)
    mixture = datasets.only(mixtures.mod21(), MODALITIES)
    if args.runlocal:
        return datasets.fake_tokens(
            "pictures", MODALITIES, mixture, family="fourm", weight=args.weight, num_records=64
        )
    return datasets.tokens("pictures", MODALITIES, mixture, data=args.data, weight=args.weight)


def tokenizer(name: str, raw: str, runlocal: bool) -> ml_collections.ConfigDict:
    """Return the training of one tokenizer; `runlocal` reads the scanned digits."""
    if name not in TOKENIZERS:
        raise ValueError(errors.unknown_value("pictures tokenizer", name, TOKENIZERS))
    field, signal, loss, num_codes = TOKENIZERS[name]
    data = {
        "name": "pictures",
        "source": "picture_crops",
        "arguments": {"directory": raw, "image_size": 224, "fields": (field,), "num_crops": 4},
    }
    if runlocal:
        field = name  # as the digits call it
        data = {"name": "digits", "source": "digits", "arguments": {"image_size": 32}}
    return vit.make(
        name, signal, loss, data, source_field=field, num_codes=num_codes, runlocal=runlocal
    )
