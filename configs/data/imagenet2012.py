"""ImageNet 2012: photographs of 1,000 classes; the caption is the name of the class.

    tfds build imagenet2012 --file_format=array_record --manual_dir=DIR

DIR holds ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, from image-net.org. 1,281,167
pictures for training, 50,000 held out.
"""

import ml_collections

from configs import mixtures
from configs.data import tfds

RAW = {
    "dataset": "imagenet2012",
    "splits": {"train": "train", "test": "validation"},
    "fields": {"rgb": ("picture", "image"), "caption": ("imagenet_name", "label")},
}
MODALITIES = ("rgb@224", "tok_rgb@224", "caption")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the tokens as a data set; arguments: data (folder of shards), runlocal."""
    mixture = tfds.only(mixtures.mod7_capbias(), MODALITIES)
    return tfds.tokens("imagenet2012", MODALITIES, mixture, arg)
