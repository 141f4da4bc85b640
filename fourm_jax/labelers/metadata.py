"""Labeler: numbers about the picture and about what the other labelers found in it."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fourm_jax.labelers.base import Labeler, Output
from fourm_jax.modalities import boxes


def make_labeler() -> Labeler:
    """Make `metadata`, {field: number} with fields of `modalities.metadata_fields.FIELDS`.

    Fields whose formula the published system does not state (walkability, objectness, complexity,
    occlusion) or that need a model of their own (watermark, aesthetics) are left out.
    """

    def label(records):
        return [{"metadata": describe(record)} for record in records]

    return Labeler(
        name="metadata",
        inputs=("rgb", "original_size"),
        optional=("caption", "det", "sam_mask", "semseg"),
        outputs={"metadata": Output()},
        label=label,
    )


def describe(record: Mapping[str, Any]) -> dict[str, float]:
    """All fields that a record allows. Caption counts are of pictures with one caption."""
    height, width = record["original_size"].tolist()
    values = {"original_width": width, "original_height": height, **appearance(record["rgb"])}
    if len(record.get("caption", ())) == 1:
        values |= _caption(record["caption"][0])
    if "det" in record:
        values |= _detections(boxes.from_record(record["det"]).filtered().classes)
    if "sam_mask" in record:
        values["n_sam_instances"] = len(record["sam_mask"]["points"])
    if "semseg" in record:
        values["semantic_diversity"] = len(set(np.unique(record["semseg"]).tolist()) - {0})
    return values


def appearance(rgb: UInt8[np.ndarray, "h w 3"]) -> dict[str, float]:
    """Statistics of the pixels, each in the range that `modalities.metadata` gives its field.

    Brightness and contrast: mean and standard deviation of the luma (ITU-R 601); saturation: mean
    of HSV's; entropy: of the luma's histogram, in bits; colourfulness: Hasler and Süsstrunk (2003),
    "Measuring colourfulness in natural images", M3.
    """
    picture = Image.fromarray(rgb)
    luma = picture.convert("L")
    levels = np.asarray(luma)
    red, green, blue = np.moveaxis(rgb.astype(np.float64), -1, 0)
    opponent, yellow = red - green, (red + green) / 2 - blue
    spread = np.hypot(opponent.std(), yellow.std())
    return {
        "colorfulness": float(spread + 0.3 * np.hypot(opponent.mean(), yellow.mean())),
        "brightness": float(levels.mean()),
        "contrast": float(levels.std()),
        "saturation": float(np.asarray(picture.convert("HSV").getchannel("S")).mean()),
        "entropy": float(luma.entropy()),
    }


def _caption(text: str) -> dict[str, int]:
    sentences = [part for part in re.split(r"[.!?]+(?:\s|$)", text) if part.strip()]
    return {
        "caption_n_chars": len(text),
        "caption_n_words": len(text.split()),
        "caption_n_sentences": len(sentences),
    }


def _detections(classes: tuple[str, ...]) -> dict[str, int]:
    return {
        "n_humans": classes.count("person"),
        "n_coco_instances": len(classes),
        "coco_instance_diversity": len(set(classes)),
    }
