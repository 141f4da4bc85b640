"""The embedded data set: rendered 3-D scenes with exactly aligned ground truth for every signal.

One integer seed is one scene, whatever batch it is rendered in. Training scenes use the seeds
below 2**30, held-out scenes those from 2**30 on.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from fourm_jax.scenes import features, signals, text
from fourm_jax.scenes import layout as scene_layout
from fourm_jax.scenes import render as scene_render
from fourm_jax.utils import errors

CLASSES = signals.CLASSES
SHAPES = scene_layout.SHAPES
COLOURS = scene_layout.COLOURS
POSE_FIELDS = signals.POSE_FIELDS
MAX_OBJECTS = scene_layout.MAX_OBJECTS
FAR = scene_render.FAR

BLOCK = 64  # scenes per compiled call: one shape to compile, and planes that fit the cache
FIRST_SEED = {"train": 0, "test": 2**30}
MAX_RECORDS = 2**22  # scenes per split and value of SceneSource's `seed`
ARRAYS = (
    "rgb",
    "depth",
    "normal",
    "semseg",
    "instance",
    "edge",
    "instance_edge",
    "feature",
    "feature_global",
    "poses",
    "num_objects",
)

# Three compiled steps: in one, XLA would recompute the few parameters for every pixel.
_sample = jax.jit(scene_layout.sample)
_render = jax.jit(scene_render.render, static_argnames="image_size")
_derive = jax.jit(signals.derive)


def render(
    seeds: Int[np.ndarray, "b"] | Sequence[int], image_size: int = 32
) -> dict[str, np.ndarray | list]:
    """Render the scenes of `seeds` with all their signals.

    Args:
      seeds: any number of integers in 0..2**31-1, repeats allowed.
      image_size: height and width in pixels, a multiple of 4.

    Returns:
      Arrays with leading axis b:
        rgb uint8 [h w 3]; depth float32 [h w] metres along the optical axis, 0..FAR;
        normal float32 [h w 3] unit (x right, y up, z towards the viewer; the sky is 0 0 1);
        semseg uint8 [h w], index into CLASSES; instance uint8 [h w], 0 none, i + 1 the i-th object;
        edge, instance_edge uint8 [h w], 0 or 255; feature float32 [h/4 w/4 12] and feature_global
        float32 [32], standardized (scene_features.FEATURE_CHANNELS, GLOBAL_FEATURES);
        poses float32 [MAX_OBJECTS 7], POSE_FIELDS in metres in the camera frame of `normal`, zeros
        after the last object; num_objects int32.
      Lists of length b:
        caption: str (grammar: scene_text);
        det: {"boxes": float32 [k, 4] xmin ymin xmax ymax in 0..1, "classes": list of str};
        color_palette: uint8 [k, 3], 1..7 colours, most frequent first;
        metadata: {field: number}, fields of modalities.metadata_fields.FIELDS.
      Objects are those that show at least 1.5 % of the pixels (15 at 32 x 32), always sorted by
      visible area, largest first.

    Raises:
      ValueError: an image size or seed outside these ranges.
    """
    seeds = np.asarray(seeds)
    if image_size <= 0 or image_size % features.CELL:
        raise ValueError(f"image_size {image_size}, allowed: positive multiples of 4")
    if seeds.ndim != 1 or not len(seeds) or seeds.min() < 0 or seeds.max() >= 2**31:
        raise ValueError(f"seeds {seeds}, allowed: a non-empty list of integers in 0..{2**31 - 1}")
    padded = np.resize(seeds, -(-len(seeds) // BLOCK) * BLOCK).astype(np.int32)
    # Dispatch every block before fetching the first one: the host waits once.
    blocks = [_render_block(jnp.asarray(block), image_size) for block in padded.reshape(-1, BLOCK)]
    blocks = jax.device_get(blocks)
    scene = {
        name: np.concatenate([block[name] for block in blocks])[: len(seeds)] for name in blocks[0]
    }
    return {**{name: scene[name] for name in ARRAYS}, **_describe(scene)}


def _render_block(seeds: jax.Array, image_size: int) -> dict[str, jax.Array]:
    layout = _sample(seeds)
    return _derive(layout, _render(layout, image_size))


def _describe(scene: dict[str, np.ndarray]) -> dict[str, list]:
    """The parts of a record that are text or lists."""
    scene = {**scene, "entropy": text.entropies(scene["grey"])}
    indices = range(len(scene["rgb"]))
    captions = [text.caption(scene, index) for index in indices]
    return {
        "caption": captions,
        "det": [text.detections(scene, index) for index in indices],
        "color_palette": text.palettes(scene["rgb"], scene["colour_bin"]),
        "metadata": [text.metadata(scene, index, captions[index]) for index in indices],
    }


class SceneSource:
    """Random access to the scenes of one split, as records: field -> array, text or dict.

    Reading in order renders each block of 64 once; `records` renders any set of indices at full
    speed.
    """

    def __init__(self, split: str, num_records: int, image_size: int = 32, seed: int = 0) -> None:
        """Choose `num_records` scenes of "train" or "test"; each `seed` 0..255 has its own scenes.

        Raises:
          ValueError: an unknown split, or a number of records or seed outside the split's range.
        """
        if split not in FIRST_SEED:
            raise ValueError(errors.unknown_value("split", split, FIRST_SEED))
        if not 0 < num_records <= MAX_RECORDS:
            raise ValueError(f"num_records {num_records}, allowed: 1..{MAX_RECORDS}")
        if not 0 <= seed < 2**30 // MAX_RECORDS:
            raise ValueError(f"seed {seed}, allowed: 0..{2**30 // MAX_RECORDS - 1}")
        self.image_size = image_size
        self._num_records = num_records
        self._first_seed = FIRST_SEED[split] + seed * MAX_RECORDS
        self._cached: tuple[int, dict] = (-1, {})

    def __len__(self) -> int:
        return self._num_records

    def __getitem__(self, index: int) -> dict[str, np.ndarray | str | dict]:
        """Record `index`, without the batch axis."""
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index}, allowed: 0..{len(self) - 1}")
        block, offset = divmod(index, BLOCK)
        number, records = self._cached
        if number != block:
            stop = min((block + 1) * BLOCK, len(self))
            records = self.records(np.arange(block * BLOCK, stop))
            self._cached = (block, records)  # one assignment: threads never see half of it
        return {name: values[offset] for name, values in records.items()}

    def records(
        self, indices: Int[np.ndarray, "b"] | Sequence[int]
    ) -> dict[str, np.ndarray | list]:
        """Batched records of `indices`, the fields of `render`."""
        indices = np.asarray(indices)
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"records {indices}, allowed: 0..{len(self) - 1}")
        return render(self._first_seed + indices, self.image_size)
