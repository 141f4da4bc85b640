"""C4: English web text, the text-only share of the published 21-modality mix.

    tfds build c4/en --file_format=array_record    (days on a cluster: Apache Beam)

364,868,892 documents for training, 364,608 held out. Each becomes a caption, cut at 256 tokens.
"""

import ml_collections

from configs import mixtures
from configs.data import tfds

RAW = {
    "dataset": "c4/en",
    "splits": {"train": "train", "test": "validation"},
    "fields": {"caption": ("text", "text")},
}
MODALITIES = ("caption",)


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the tokens as a data set; arguments: data (folder of shards), runlocal."""
    return tfds.tokens("c4", MODALITIES, mixtures.c4(), arg)
