"""SAM masks as pictures: polygons to the 64 x 64 masks that become codes, and back.

Source: docs/published.md#modalities.

A mask is drawn inside the box of its own polygon, so that its resolution does not depend on its
size; `instances` writes box and codes as text.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from fourm_jax.modalities.instances import SIZE

MASK_SIZE = 64
Polygon = Float[np.ndarray, "_n 2"]  # _: outlines differ in length


def rasterize(
    polygons: Sequence[Polygon], boxes: Int[np.ndarray, "k 4"], size: int = MASK_SIZE
) -> Bool[np.ndarray, "k s s"]:
    """Draw every outline inside its box: a pixel is True where its centre is inside (even-odd).

    Raises:
      ValueError: not as many boxes as polygons, or a box without area.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if len(boxes) != len(polygons):
        raise ValueError(f"{len(polygons)} polygons and {len(boxes)} boxes")
    if not (boxes[:, 2:] > boxes[:, :2]).all():
        raise ValueError("boxes must have xmin < xmax and ymin < ymax; leave out empty outlines")
    masks = np.zeros((len(boxes), size, size), bool)
    centres = (np.arange(size) + 0.5) / size
    for mask, polygon, box in zip(masks, polygons, boxes, strict=True):
        unit = (np.asarray(polygon, np.float64).reshape(-1, 2) - box[:2]) / (box[2:] - box[:2])
        start, end = unit, np.roll(unit, -1, axis=0)
        y = centres[:, None]
        crosses = (start[:, 1] > y) != (end[:, 1] > y)  # [rows, edges]
        with np.errstate(divide="ignore", invalid="ignore"):
            x = start[:, 0] + (y - start[:, 1]) / (end[:, 1] - start[:, 1]) * (end - start)[:, 0]
        right_of = crosses[:, None] & (centres[:, None] < x[:, None])  # [rows, columns, edges]
        mask[:] = right_of.sum(axis=-1) % 2 == 1
    return masks


def paste(
    masks: Float[np.ndarray, "k s s"],
    boxes: Int[np.ndarray, "k 4"],
) -> Bool[np.ndarray, "k y x"]:
    """Return masks of the whole crop: each is resized (bicubic) to its box and thresholded at 0.5.

    Args:
      masks: probabilities.
      boxes: xmin, ymin, xmax, ymax inside the crop; the inverse of `rasterize`.

    Raises:
      ValueError: a box without area or outside the crop.
    """
    boxes = np.asarray(boxes, np.int64).reshape(-1, 4)
    if not ((boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all() and (boxes <= SIZE).all()):
        raise ValueError(f"boxes must have xmin < xmax and ymin < ymax inside 0..{SIZE}")
    pasted = np.zeros((len(boxes), SIZE, SIZE), bool)
    for whole, mask, (xmin, ymin, xmax, ymax) in zip(pasted, masks, boxes, strict=True):
        picture = Image.fromarray(np.asarray(mask, np.float32))
        resized = picture.resize((xmax - xmin, ymax - ymin), Image.Resampling.BICUBIC)
        whole[ymin:ymax, xmin:xmax] = np.asarray(resized) > 0.5
    return pasted
