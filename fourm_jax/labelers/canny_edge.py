"""Labeler: Canny edges of the picture's brightness."""

import numpy as np
from PIL import Image

from fourm_jax.labelers import extras
from fourm_jax.labelers.base import Labeler, Output

# The published system does not say how its edges were made. These keep outlines and strong texture
# of photographs at 224 to 512 pixels; the thresholds are of scikit-image's Sobel gradient.
SIGMA, LOW, HIGH = 1.4, 0.08, 0.2


def make_labeler() -> Labeler:
    """Make `canny_edge`, 255 on an edge and 0 elsewhere.

    Raises:
      ValueError: scikit-image is not installed.
    """
    feature = extras.require("skimage.feature", "canny_edge")

    def edges(rgb):
        grey = np.asarray(Image.fromarray(rgb).convert("L"), np.float32) / 255
        found = feature.canny(grey, sigma=SIGMA, low_threshold=LOW, high_threshold=HIGH)
        return found.astype(np.uint8) * 255

    return Labeler(
        name="canny_edge",
        inputs=("rgb",),
        outputs={"canny_edge": Output(axes="hw", dtype="uint8", low=0, high=255)},
        label=lambda records: [{"canny_edge": edges(record["rgb"])} for record in records],
        settings={"sigma": SIGMA, "low": LOW, "high": HIGH},
    )
