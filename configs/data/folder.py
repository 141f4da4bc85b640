"""A plain folder of pictures and the captions beside them (a.jpg, a.txt).

python -m experiments.tokenize_dataset --config=configs/data/folder.py:tokenize,images=DIR \
    --split=train --tokenizers=DIR --output=DIR

One picture in ten, by its path, is held out as --split=test.
"""

import ml_collections

from configs import datasets, mixtures
from fourm_jax.utils import config as config_lib

MODALITIES = ("rgb@224", "tok_rgb@224", "caption")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the tokens as a data set; arguments: data (folder of shards), weight.

    tokenize: with images, the folder of the pictures.
    """
    args = config_lib.parse_arg(
        arg, data="runs/folder/data", weight=1.0, tokenize=False, images="images"
    )
    if args.tokenize:
        raw = {"directory": args.images, "image_size": 224, "test_fraction": 0.1}
        return datasets.tokenize("folder", raw, MODALITIES)
    mixture = datasets.only(mixtures.mod7_capbias(), MODALITIES)
    return datasets.tokens("folder", MODALITIES, mixture, data=args.data, weight=args.weight)
