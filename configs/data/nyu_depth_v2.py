"""NYU Depth V2: indoor video frames with measured depth in metres.

    tfds build nyu_depth_v2 --file_format=array_record

47,584 frames for training, 654 held out.
"""

import ml_collections

from configs import datasets, mixtures


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the data set; arguments as `datasets.from_tfds` says."""
    return datasets.from_tfds(
        arg,
        "nyu_depth_v2",
        dataset="nyu_depth_v2",
        splits={"train": "train", "test": "validation"},
        fields={"rgb": ("picture", "image"), "depth": ("depth", "depth")},
        modalities=("rgb@224", "tok_rgb@224", "tok_depth@224"),
        mixture=mixtures.mod7_rgb2all(),
    )
