"""Oxford-IIIT Pet: cats and dogs of 37 breeds with trimaps.

    tfds build oxford_iiit_pet --file_format=array_record

3,680 pictures for training, 3,669 held out. caption: "<breed> <species>", "american bulldog dog";
semseg: COCO's cat or dog on the pet, void elsewhere, so that it can be mixed with COCO's classes.
"""

import ml_collections

from configs import mixtures
from configs.data import tfds

RAW = {
    "dataset": "oxford_iiit_pet",
    "splits": {"train": "train", "test": "test"},
    "fields": {
        "rgb": ("picture", "image"),
        "semseg": ("pet_classes", "segmentation_mask", "species"),
        "caption": ("class_names", "label", "species"),
    },
}
MODALITIES = ("rgb@224", "tok_rgb@224", "tok_semseg@224", "caption")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the tokens as a data set; arguments: data (folder of shards), runlocal."""
    mixture = tfds.only(mixtures.mod7_capbias(), MODALITIES)
    return tfds.tokens("oxford_iiit_pet", MODALITIES, mixture, arg)
