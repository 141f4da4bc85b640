"""Your own pictures as token shards: pixels, edges, palette, metadata and captions.

Written by `experiments.build_data`, then `experiments.tokenize_dataset` with
configs/pretokenize/pictures.py.
"""

import ml_collections

from configs import mixtures
from configs.data import tfds

MODALITIES = (
    "rgb@224", "tok_rgb@224", "tok_canny_edge@224", "caption", "color_palette", "metadata",
)  # fmt: skip


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the tokens as a data set; arguments: data (folder of shards), runlocal."""
    mixture = tfds.only(mixtures.mod21(), MODALITIES)
    return tfds.tokens("pictures", MODALITIES, mixture, arg)
