"""COCO 2014 photographs, five captions each, with boxes; the splits of Karpathy and Li.

    tfds build coco_captions/2014 --file_format=array_record

113,287 pictures for training, 5,000 held out. One of the captions is drawn per (seed, picture) when
they are tokenized. Boxes are those of all 80 classes, without crowds.
"""

import ml_collections

from configs import datasets, mixtures


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the data set; arguments as `datasets.from_tfds` says."""
    return datasets.from_tfds(
        arg,
        "coco_captions",
        dataset="coco_captions/2014",
        splits={"train": "train+restval", "test": "test"},
        fields={
            "rgb": ("picture", "image"),
            "caption": ("texts", "captions"),
            "det": ("boxes", "objects"),
        },
        modalities=("rgb@224", "tok_rgb@224", "caption", "det"),
        mixture=mixtures.mod7_capbias(),
    )
