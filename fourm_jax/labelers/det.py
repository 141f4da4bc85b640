"""Labeler: boxes of objects with class names and scores."""

import numpy as np

from fourm_jax.labelers import models
from fourm_jax.labelers.base import Labeler, Output
from fourm_jax.modalities import boxes, coordinates

MIN_SCORE = 0.3  # of what is kept; texts take boxes from `boxes.MIN_SCORE` on
MAX_BOXES = 100


def make_labeler(*, model: str) -> Labeler:
    """Make `det`, {"boxes": float32 [k, 4] xmin ymin xmax ymax in 0..1, "classes": k names,
    "scores": float32 [k]}, highest score first.

    Raises:
      ValueError: see `labelers.models.load`.
    """
    loaded = models.load("det", "AutoModelForObjectDetection", model)
    names = loaded.net.config.id2label

    def run(images):
        outputs = loaded.net(**loaded.prepared(images))
        height, width = images.shape[1:3]
        made = loaded.processor.post_process_object_detection(
            outputs, threshold=MIN_SCORE, target_sizes=models.sizes(images)
        )
        return [{"det": record(found, (width, height))} for found in made]

    def record(found, size):
        corners = models.array(found["boxes"], "float64").reshape(-1, 4) / np.array([*size, *size])
        classes = [names[label] for label in found["labels"].tolist()]
        scores = models.array(found["scores"], "float64")
        inside = boxes.Boxes(np.clip(corners, 0, 1), tuple(classes), scores)
        rows = np.flatnonzero(coordinates.has_extent(inside.boxes))
        best = inside.select(rows).strongest(MAX_BOXES)
        return {
            "boxes": best.boxes.astype(np.float32),
            "classes": list(best.classes),
            "scores": np.asarray(best.scores, np.float32),
        }

    return Labeler(
        name="det",
        inputs=("rgb",),
        outputs={"det": Output()},
        label=models.by_size(loaded, run),
        settings={**loaded.settings, "min_score": MIN_SCORE, "max_boxes": MAX_BOXES},
    )
