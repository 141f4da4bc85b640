"""C4: English web text, the text-only share of the published 21-modality mix.

    tfds build c4/en --file_format=array_record    (days on a cluster: Apache Beam)

364,868,892 documents for training, 364,608 held out. Each becomes a caption, cut at 256 tokens.
"""

import ml_collections

from configs import datasets, mixtures


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the data set; arguments as `datasets.from_tfds` says."""
    return datasets.from_tfds(
        arg,
        "c4",
        dataset="c4/en",
        splits={"train": "train", "test": "validation"},
        fields={"caption": ("text", "text")},
        modalities=("caption",),
        mixture=mixtures.c4(),
    )
