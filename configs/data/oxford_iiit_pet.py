"""Oxford-IIIT Pet: cats and dogs of 37 breeds with trimaps.

    tfds build oxford_iiit_pet --file_format=array_record

3,680 pictures for training, 3,669 held out. caption: "<breed> <species>", "american bulldog dog";
semseg: COCO's cat or dog on the pet, void elsewhere, so that it can be mixed with COCO's classes.
"""

import ml_collections

from configs import datasets, mixtures


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the data set; arguments as `datasets.from_tfds` says."""
    return datasets.from_tfds(
        arg,
        "oxford_iiit_pet",
        dataset="oxford_iiit_pet",
        fields={
            "rgb": ("picture", "image"),
            "semseg": ("pet_classes", "segmentation_mask", "species"),
            "caption": ("class_names", "label", "species"),
        },
        modalities=("rgb@224", "tok_rgb@224", "tok_semseg@224", "caption"),
        mixture=mixtures.mod7_capbias(),
    )
