"""COCO 2017 photographs with panoptic annotation: classes of all pixels, boxes of the things.

    tfds build coco/2017_panoptic --file_format=array_record

118,287 pictures for training, 5,000 held out. semseg: 0 = void, 1..133 = COCO's classes, as in the
published tokenizer; det: the 80 things, without crowds.
"""

import ml_collections

from configs import datasets, mixtures


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the data set; arguments as `datasets.from_tfds` says."""
    return datasets.from_tfds(
        arg,
        "coco_2017_panoptic",
        dataset="coco/2017_panoptic",
        splits={"train": "train", "test": "validation"},
        fields={
            "rgb": ("picture", "image"),
            "semseg": ("panoptic_classes", "panoptic_image", "panoptic_objects"),
            "det": ("thing_boxes", "panoptic_objects"),
        },
        modalities=("rgb@224", "tok_rgb@224", "tok_semseg@224", "det"),
        mixture=mixtures.mod7_rgb2all(),
    )
