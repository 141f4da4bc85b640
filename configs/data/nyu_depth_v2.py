"""NYU Depth V2: indoor video frames with measured depth in metres.

    tfds build nyu_depth_v2 --file_format=array_record

47,584 frames for training, 654 held out.
"""

import ml_collections

from configs import mixtures
from configs.data import tfds

RAW = {
    "dataset": "nyu_depth_v2",
    "splits": {"train": "train", "test": "validation"},
    "fields": {"rgb": ("picture", "image"), "depth": ("depth", "depth")},
}
MODALITIES = ("rgb@224", "tok_rgb@224", "tok_depth@224")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the tokens as a data set; arguments: data (folder of shards), runlocal."""
    mixture = tfds.only(mixtures.mod7_rgb2all(), MODALITIES)
    return tfds.tokens("nyu_depth_v2", MODALITIES, mixture, arg)
