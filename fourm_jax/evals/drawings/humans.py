"""People over their picture: boxes, and in each a figure that is turned as the person is.

The figure stands at rest: how the limbs are bent is in codes of the pose tokenizer, which only a
body model makes into places of joints, and none is part of this.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.drawings import boxes
from fourm_jax.evals.pictures import Picture
from fourm_jax.modalities.poses import Poses

# Joints in metres from the pelvis: x to the person's left, y up, z to the front.
MIDDLE: Mapping[str, tuple[float, float, float]] = {
    "pelvis": (0.0, 0.0, 0.0),
    "neck": (0.0, 0.5, 0.0),
    "head": (0.0, 0.7, 0.04),
}
LEFT: Mapping[str, tuple[float, float, float]] = {
    "shoulder": (0.18, 0.46, 0.0),
    "elbow": (0.26, 0.18, -0.02),
    "hand": (0.29, -0.08, 0.06),
    "hip": (0.09, -0.06, 0.0),
    "knee": (0.1, -0.48, 0.02),
    "ankle": (0.1, -0.88, -0.02),
    "toe": (0.11, -0.93, 0.12),
}
SPINE = ("pelvis", "neck", "head")
LIMBS = (("neck", "shoulder", "elbow", "hand"), ("pelvis", "hip", "knee", "ankle", "toe"))
WHITE, ORANGE, BLUE = (255, 255, 255), (255, 140, 0), (80, 160, 255)  # middle, left, right


def make(scale: Scale) -> Draw:
    """Return the drawing of `Poses`; without a picture the number of people."""
    del scale

    def draw(value: Poses, picture: Picture | None = None) -> Picture | str:
        if picture is None or not len(value.boxes):
            return f"{len(value.boxes)} people"
        labelled = boxes.over(picture, np.asarray(value.boxes), ["human"] * len(value.boxes))
        canvas = Image.fromarray(labelled)
        pen, size = ImageDraw.Draw(canvas), np.array([canvas.width, canvas.height] * 2)
        for box, rotation in zip(value.boxes, value.rotations, strict=True):
            for colour, line in lines(box * size, rotation.reshape(3, 3)):
                pen.line([tuple(point) for point in line.tolist()], fill=colour, width=3)
        return np.asarray(canvas)

    return draw


def lines(
    box: Float[np.ndarray, "4"], rotation: Float[np.ndarray, "3 3"]
) -> list[tuple[tuple[int, int, int], Float[np.ndarray, "_n 2"]]]:
    """Colour and points (x, y) of the lines of one figure, as large as its box allows.

    Args:
      box: xmin, ymin, xmax, ymax in pixels.
      rotation: of the person to the camera, whose x points right and y down.
    """
    right = {name: (-x, y, z) for name, (x, y, z) in LEFT.items()}
    sides = ((ORANGE, {**MIDDLE, **LEFT}), (BLUE, {**MIDDLE, **right}))
    chains = [
        (colour, [joints[name] for name in limb]) for colour, joints in sides for limb in LIMBS
    ]
    chains.append((WHITE, [MIDDLE[name] for name in SPINE]))
    seen = [(colour, np.array(chain) @ rotation.T[:, :2]) for colour, chain in chains]
    points = np.concatenate([line for _, line in seen])
    low, high = points.min(axis=0), points.max(axis=0)
    factor = ((box[2:] - box[:2]) / np.maximum(high - low, 1e-6)).min()
    middle = (box[:2] + box[2:]) / 2
    return [(colour, middle + factor * (line - (low + high) / 2)) for colour, line in seen]
