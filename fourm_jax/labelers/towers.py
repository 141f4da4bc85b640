"""Dense and global features of vision transformers, on whole pictures of any size."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from fourm_jax.data.crops import images as image_transforms
from fourm_jax.labelers import models
from fourm_jax.labelers.base import Labeler, Output

# Patch tokens [b, n, c] and a global vector [b, c] or None, of a model's last hidden state.
Read = Callable[[Any, Any], tuple[Any, Any]]


def make(name: str, auto_class: str, model: str, read: Read, outputs: tuple[str, ...]) -> Labeler:
    """Labeler of a vision transformer.

    The picture is resized (bicubic) to the nearest whole number of patches, never cropped, so that
    cell [i, j] of the map always shows the same part of it; position embeddings are interpolated.

    Args:
      outputs: field of the map float32 [rows, columns, c], and where `read` gives a global vector
        that of the vector float32 [c].

    Raises:
      ValueError: see `labelers.models.load`; a model without square patches.
    """
    loaded = models.load(name, auto_class, model)
    patch = getattr(loaded.net.config, "patch_size", None)
    if not isinstance(patch, int):
        raise ValueError(f"labeler {name!r}, model {model}: patch_size {patch}, expected a number")
    scale = loaded.processor.image_mean, loaded.processor.image_std
    options = {"interpolate_pos_encoding": True}
    if "interpolate_pos_encoding" not in inspect.signature(loaded.net.forward).parameters:
        options = {}  # such models always interpolate

    def run(images):
        rows, columns = (max(round(side / patch), 1) for side in images.shape[1:3])
        size = rows * patch, columns * patch
        fitted = [image_transforms.resize(image, size, "bicubic") for image in images]
        pixels = np.stack([image_transforms.normalize(image, *scale) for image in fitted])
        tensor = loaded.tensor(np.moveaxis(pixels, -1, 1))
        hidden = loaded.net(pixel_values=tensor, **options).last_hidden_state
        cells, whole = read(loaded.net, hidden)
        if cells.shape[1] != rows * columns:
            raise ValueError(f"{cells.shape[1]} patch tokens, expected {rows} x {columns}")
        maps = models.array(cells, "float32").reshape(len(images), rows, columns, -1)
        if whole is None:
            return [{outputs[0]: one} for one in maps]
        vectors = models.array(whole, "float32")
        return [dict(zip(outputs, pair, strict=True)) for pair in zip(maps, vectors, strict=True)]

    types = (Output(axes="ijc", dtype="float32"), Output(axes="c", dtype="float32"))
    return Labeler(
        name=name,
        inputs=("rgb",),
        outputs=dict(zip(outputs, types, strict=False)),
        label=models.by_size(loaded, run),
        settings=loaded.settings,
    )


def normed_tokens(net: Any, hidden: Any) -> tuple[Any, Any]:
    """Patch tokens and class token of a model whose last hidden state is normalized."""
    return hidden[:, 1 + getattr(net.config, "num_register_tokens", 0) :], hidden[:, 0]
