"""COCO 2014 photographs, five captions each, with boxes; the splits of Karpathy and Li.

    tfds build coco_captions/2014 --file_format=array_record

113,287 pictures for training, 5,000 held out. One of the captions is drawn per (seed, picture) when
they are tokenized. Boxes are those of all 80 classes, without crowds.
"""

import ml_collections

from configs import mixtures
from configs.data import tfds

RAW = {
    "dataset": "coco_captions/2014",
    "splits": {"train": "train+restval", "test": "test"},
    "fields": {
        "rgb": ("picture", "image"),
        "caption": ("texts", "captions"),
        "det": ("boxes", "objects"),
    },
}
MODALITIES = ("rgb@224", "tok_rgb@224", "caption", "det")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the tokens as a data set; arguments: data (folder of shards), runlocal."""
    mixture = tfds.only(mixtures.mod7_capbias(), MODALITIES)
    return tfds.tokens("coco_captions", MODALITIES, mixture, arg)
