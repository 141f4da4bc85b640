"""Words and short lists of a scene: caption, detections, palette and metadata.

Grammar of a caption, objects by visible area, largest first; `thing` is "a <size> <colour> <shape>"
and `rel` as `relation` says, read from the larger to the smaller object of the pair:

    0  an empty scene              2  thing rel thing
    1  thing                       3  thing rel thing and thing
                                   4  thing rel thing and thing rel thing
"""

import numpy as np
from jaxtyping import Float, Num, UInt8

from fourm_jax.scenes import layout

EMPTY_CAPTION = "an empty scene"
MAX_COLOURS = 7  # of a palette
MIN_COLOUR_SHARE = 0.02  # of the pixels

# Names and ranges are those of modalities.metadata_fields.FIELDS.
COUNTED_FIELDS = ("num_objects", "semantic_diversity", "caption_n_chars", "caption_n_words")
MEASURED_FIELDS = (
    "colorfulness",
    "brightness",
    "contrast",
    "saturation",
    "entropy",
    "objectness",
    "geometric_complexity",
    "occlusion_score",
    "camera_height",
    "camera_pitch",
)

_COLOUR_NAMES = tuple(layout.COLOURS)


def thing(scene: dict[str, np.ndarray], index: int, rank: int) -> str:
    """Name one object, e.g. "a large red sphere"."""
    size = layout.SIZES[int(scene["large"][index, rank])]
    colour = _COLOUR_NAMES[scene["colour"][index, rank]]
    return f"a {size} {colour} {layout.SHAPES[scene['shape'][index, rank]]}"


def relation(first: Num[np.ndarray, "p"], second: Num[np.ndarray, "p"]) -> str:
    """How one pose (x, y, z, …) relates to another, by the axis on which they differ most."""
    right, nearer = first[0] - second[0], first[2] - second[2]
    if abs(right) >= abs(nearer):
        return "right of" if right > 0 else "left of"
    return "in front of" if nearer > 0 else "behind"


def caption(scene: dict[str, np.ndarray], index: int) -> str:
    """Describe all visible objects of scene `index` in at most 23 words."""
    things = [thing(scene, index, rank) for rank in range(scene["num_objects"][index])]
    poses = scene["poses"][index]
    joined = []
    for rank in range(0, len(things), 2):
        pair = things[rank : rank + 2]
        between = f" {relation(poses[rank], poses[rank + 1])} " if len(pair) == 2 else ""
        joined.append(between.join(pair))
    return " and ".join(joined) or EMPTY_CAPTION


def detections(scene: dict[str, np.ndarray], index: int) -> dict:
    """Boxes float32 [k, 4] (xmin, ymin, xmax, ymax in 0..1) and class names, as in the caption."""
    count = int(scene["num_objects"][index])
    shapes = scene["shape"][index, :count]
    return {
        "boxes": scene["boxes"][index, :count],
        "classes": [layout.SHAPES[shape] for shape in shapes],
    }


def palettes(
    rgb: UInt8[np.ndarray, "b h w 3"], colour_bin: UInt8[np.ndarray, "b h w"]
) -> list[UInt8[np.ndarray, "k 3"]]:
    """Return 1 to 7 dominant colours of each picture, most frequent first.

    A colour is the mean of one of 64 bins (four levels per channel) that holds at least 2 % of the
    pixels.
    """
    num_scenes, num_pixels = len(rgb), rgb.shape[1] * rgb.shape[2]
    flat = (colour_bin.reshape(num_scenes, -1) + 64 * np.arange(num_scenes)[:, None]).ravel()
    counts = np.bincount(flat, minlength=64 * num_scenes).reshape(num_scenes, 64)
    channels = rgb.reshape(-1, 3)
    sums = np.stack(
        [np.bincount(flat, channels[:, axis], 64 * num_scenes) for axis in range(3)], axis=-1
    ).reshape(num_scenes, 64, 3)
    means = np.rint(sums / np.maximum(counts, 1)[..., None]).astype(np.uint8)
    order = np.argsort(-counts, axis=1, kind="stable")[:, :MAX_COLOURS]
    sizes = np.sum(np.take_along_axis(counts, order, 1) >= MIN_COLOUR_SHARE * num_pixels, axis=1)
    return [
        mean[ranked[: max(size, 1)]] for mean, ranked, size in zip(means, order, sizes, strict=True)
    ]


def entropies(grey: UInt8[np.ndarray, "b h w"]) -> Float[np.ndarray, "b"]:
    """Entropy of each grey-level histogram in bits, 0..8."""
    num_scenes = len(grey)
    flat = (grey.reshape(num_scenes, -1) + 256 * np.arange(num_scenes)[:, None]).ravel()
    counts = np.bincount(flat, minlength=256 * num_scenes).reshape(num_scenes, 256)
    shares = counts / (grey.shape[1] * grey.shape[2])
    return -np.sum(shares * np.log2(np.where(shares > 0, shares, 1.0)), axis=1)


def metadata(scene: dict[str, np.ndarray], index: int, text: str) -> dict[str, float]:
    """COUNTED_FIELDS and MEASURED_FIELDS of scene `index`, whose caption is `text`."""
    count = int(scene["num_objects"][index])
    shapes = set(scene["shape"][index, :count].tolist())
    counted = (count, len(shapes), len(text), len(text.split()))
    return {
        **dict(zip(COUNTED_FIELDS, counted, strict=True)),
        **{name: float(scene[name][index]) for name in MEASURED_FIELDS},
    }
