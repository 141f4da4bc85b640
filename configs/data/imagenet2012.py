"""ImageNet 2012: photographs of 1,000 classes; the caption is the name of the class.

    tfds build imagenet2012 --file_format=array_record --manual_dir=DIR

DIR holds ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, from image-net.org. 1,281,167
pictures for training, 50,000 held out.
"""

import ml_collections

from configs import datasets, mixtures


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the data set; arguments as `datasets.from_tfds` says."""
    return datasets.from_tfds(
        arg,
        "imagenet2012",
        dataset="imagenet2012",
        splits={"train": "train", "test": "validation"},
        fields={"rgb": ("picture", "image"), "caption": ("imagenet_name", "label")},
        modalities=("rgb@224", "tok_rgb@224", "caption"),
        mixture=mixtures.mod7_capbias(),
    )
