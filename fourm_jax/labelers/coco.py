"""The 133 classes of COCO panoptic segmentation, the vocabulary of semantic labels and boxes."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

THINGS = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
STUFF = (
    "banner", "blanket", "bridge", "cardboard", "counter", "curtain", "door-stuff", "floor-wood",
    "flower", "fruit", "gravel", "house", "light", "mirror-stuff", "net", "pillow", "platform",
    "playingfield", "railroad", "river", "road", "roof", "sand", "sea", "shelf", "snow", "stairs",
    "tent", "towel", "wall-brick", "wall-stone", "wall-tile", "wall-wood", "water-other",
    "window-blind", "window-other", "tree-merged", "fence-merged", "ceiling-merged",
    "sky-other-merged", "cabinet-merged", "table-merged", "floor-other-merged", "pavement-merged",
    "mountain-merged", "grass-merged", "dirt-merged", "paper-merged", "food-other-merged",
    "building-other-merged", "rock-merged", "wall-other-merged", "rug-merged",
)  # fmt: skip
# Class c is id c + 1 of a label map; 0 is no class (docs/published.md#modalities).
CLASSES = THINGS + STUFF


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
