"""Labeler: everything that Segment Anything finds, as outlines, boxes and edges."""

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from fourm_jax.labelers import extras, models
from fourm_jax.labelers.base import Labeler, Output

POINTS_PER_SIDE = 32  # of the grid of query points
MAX_INSTANCES = 200  # the largest ones
TOLERANCE = 1.0  # pixels that an outline may leave the border of its mask


def make_labeler(*, model: str) -> Labeler:
    """Make `sam_mask` and `sam_edge`.

    `sam_mask` is {"points": k outlines [[x, y], ...], "bbox": k of [ymin, xmin, ymax, xmax]} in
    pixels of the picture, largest first: what `instances.Instances.from_record` takes once the mask
    tokenizer has added "token_ids". `sam_edge` uint8 is 255 on the borders of the masks, else 0.

    Raises:
      ValueError: see `labelers.models.load`; torchvision or scikit-image is missing.
    """
    extras.require("torchvision", "sam")
    measure = extras.require("skimage.measure", "sam")
    segmentation = extras.require("skimage.segmentation", "sam")
    loaded = models.load("sam", "AutoModelForMaskGeneration", model)
    generate = extras.require("transformers", "sam").pipeline(
        "mask-generation",
        model=loaded.net,
        image_processor=loaded.processor,
        device=loaded.device,
    )

    def label(records):
        return [instances(record["rgb"]) for record in records]

    def instances(rgb):
        picture = Image.fromarray(rgb)
        with models.running(loaded):
            made = generate(picture, points_per_batch=64, points_per_crop=POINTS_PER_SIDE)["masks"]
        masks = [np.asarray(mask, bool) for mask in made]
        masks = sorted((mask for mask in masks if mask.any()), key=lambda mask: -mask.sum())
        edge = np.zeros(rgb.shape[:2], bool)
        outlines = []
        for mask in masks[:MAX_INSTANCES]:
            edge |= segmentation.find_boundaries(mask, mode="inner")
            outlines.append(outline(mask, measure))
        kept = [points for points in outlines if len(points) > 3]
        return {
            "sam_mask": {
                "points": [np.round(points, 1).tolist() for points in kept],
                "bbox": [box(points) for points in kept],
            },
            "sam_edge": edge.astype(np.uint8) * 255,
        }

    return Labeler(
        name="sam",
        inputs=("rgb",),
        outputs={
            "sam_mask": Output(),
            "sam_edge": Output(axes="hw", dtype="uint8", low=0, high=255),
        },
        label=label,
        settings={
            **loaded.settings,
            "points_per_side": POINTS_PER_SIDE,
            "max_instances": MAX_INSTANCES,
            "tolerance": TOLERANCE,
        },
    )


def outline(mask: Bool[np.ndarray, "h w"], measure) -> Float[np.ndarray, "n 2"]:
    """Longest outline of a mask, simplified: x, y in pixels, first point = last point."""
    found = measure.find_contours(np.pad(mask, 1).astype(float), 0.5)
    longest = max(found, key=len) - 0.5  # undoes the padding; pixel centres lie at halves
    return measure.approximate_polygon(longest, TOLERANCE)[:, ::-1]


def box(points: Float[np.ndarray, "n 2"]) -> list[int]:
    """Smallest box of whole pixels around an outline: ymin, xmin, ymax, xmax."""
    (left, top), (right, bottom) = np.floor(points.min(0)), np.ceil(points.max(0))
    return [int(top), int(left), int(bottom), int(right)]
