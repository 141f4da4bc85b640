"""CLEVR: rendered solids on a table, described object by object.

    tfds build clevr --file_format=array_record

70,000 pictures for training, 15,000 held out. The caption lists size, colour, material and shape
of all objects, "a large red metal cube, a small …", in the order of the annotation. There are no
boxes: the annotation has centres only.
"""

import ml_collections

from configs import datasets, mixtures


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the data set; arguments as `datasets.from_tfds` says."""
    return datasets.from_tfds(
        arg,
        "clevr",
        dataset="clevr",
        splits={"train": "train", "test": "validation"},
        fields={"rgb": ("picture", "image"), "caption": ("clevr_caption", "objects")},
        modalities=("rgb@224", "tok_rgb@224", "caption"),
        mixture=mixtures.mod7_capbias(),
    )
