"""COCO 2017 photographs with panoptic annotation: classes of all pixels, boxes of the things.

    tfds build coco/2017_panoptic --file_format=array_record

118,287 pictures for training, 5,000 held out. semseg: 0 = void, 1..133 = COCO's classes, as in the
published tokenizer; det: the 80 things, without crowds.
"""

import ml_collections

from configs import mixtures
from configs.data import tfds

RAW = {
    "dataset": "coco/2017_panoptic",
    "splits": {"train": "train", "test": "validation"},
    "fields": {
        "rgb": ("picture", "image"),
        "semseg": ("panoptic_classes", "panoptic_image", "panoptic_objects"),
        "det": ("thing_boxes", "panoptic_objects"),
    },
}
MODALITIES = ("rgb@224", "tok_rgb@224", "tok_semseg@224", "det")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the tokens as a data set; arguments: data (folder of shards), runlocal."""
    mixture = tfds.only(mixtures.mod7_rgb2all(), MODALITIES)
    return tfds.tokens("coco_2017_panoptic", MODALITIES, mixture, arg)
