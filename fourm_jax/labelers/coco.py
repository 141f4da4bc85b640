"""The 133 classes of COCO panoptic segmentation, the vocabulary of semantic labels and boxes."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from fourm_jax.modalities import classes

# Class c is id c + 1 of a label map; 0 is no class (docs/published.md#modalities).
CLASSES = classes.COCO[1:]


def ids_of(labels: Mapping[int, str]) -> UInt8[np.ndarray, "n"]:
    """Table from a model's labels to ids 0..133, by name; "N/A" becomes 0.

    Raises:
      ValueError: a label that COCO panoptic does not have (a model of another data set).
    """
    known = {name: number + 1 for number, name in enumerate(CLASSES)} | {"N/A": 0}
    foreign = [name for name in labels.values() if name not in known]
    if foreign:
        raise ValueError(
            f"{len(foreign)} of {len(labels)} labels are not classes of COCO panoptic, e.g. "
            f"{foreign[0]!r}; the model must be trained on COCO panoptic"
        )
    table = np.zeros(max(labels) + 1, np.uint8)
    for label, name in labels.items():
        table[label] = known[name]
    return table
