"""Crop, resize, flip and normalize arrays that are pictures, of any dtype, on the host."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from PIL import Image

from fourm_jax.utils import imagenet

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def resize(
    image: Shaped[np.ndarray, "h w *c"], size: tuple[int, int], resample: str
) -> Shaped[np.ndarray, "height width *c"]:
    """Resize to (height, width), same dtype; Pillow's arithmetic.

    Args:
      image: any dtype for "nearest"; uint8, uint16 or float32 for the others. Floats stay within
        their own range, although bicubic filters overshoot; of pixels without a value (not finite),
        see `resize_plane`.
      size: (height, width). (The published call passes this order to Pillow, which reads
        (width, height): right only for squares.)
      resample: "nearest", or "bilinear" or "bicubic" with antialiasing.

    Raises:
      ValueError: unknown resample, or a dtype that cannot be interpolated.
    """
    if image.shape[:2] == tuple(size):
        return image
    if resample == "nearest":
        rows, columns = (
            ((np.arange(new) + 0.5) * (old / new)).astype(np.int64)
            for old, new in zip(image.shape[:2], size, strict=True)
        )
        return image[rows[:, None], columns]
    if resample not in RESAMPLING:
        raise ValueError(f"resample {resample!r}, allowed: {['nearest', *RESAMPLING]}")
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(
            f"image of dtype {image.dtype} with resample {resample!r}; allowed: uint8, uint16, "
            f"float32, or resample nearest"
        )
    # But for colours channel by channel: of four, Pillow takes the last for opacity and multiplies.
    if image.ndim == 2 or (image.dtype == np.uint8 and image.shape[2] == 3):
        return resize_plane(image, size, resample)
    channels = [resize_plane(channel, size, resample) for channel in np.moveaxis(image, 2, 0)]
    return np.stack(channels, axis=-1)


def resize_plane(
    image: Shaped[np.ndarray, "h w *c"],
    size: tuple[int, int],
    resample: str,
    box: tuple[float, float, float, float] | None = None,
) -> Shaped[np.ndarray, "height width *c"]:
    """Resize what Pillow holds as one picture: one channel, or uint8 colours.

    Float32 pixels that are not finite hold no value: the others are averaged without them, and what
    is made of them for half of its weight or more is nan, as they are.

    Args:
      box: (left, upper, right, lower) of what is resized, in pixels; None = all.
    """

    def interpolated(values: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(np.ascontiguousarray(values))
        return np.asarray(picture.resize((size[1], size[0]), RESAMPLING[resample], box=box))

    if image.dtype != np.float32:
        return interpolated(image).astype(image.dtype, copy=False)
    known = np.isfinite(image)
    if known.all():
        return np.clip(interpolated(image), image.min(), image.max())
    if not known.any():
        return np.full(size, np.nan, np.float32)
    share = interpolated(known.astype(np.float32))
    kept = share > 0.5  # the weights of bicubic filters are signed: a small share divides badly
    mean = interpolated(np.where(known, image, np.float32(0))) / np.where(kept, share, 1)
    mean = np.clip(mean, image[known].min(), image[known].max())
    return np.where(kept, mean, np.float32(np.nan))


def crop_resize(
    image: Shaped[np.ndarray, "h w *c"],
    rectangle: Sequence[int] | Int[np.ndarray, "4"],
    size: tuple[int, int],
    resample: str,
    flip: bool = False,
) -> Shaped[np.ndarray, "height width *c"]:
    """Cut (top, left, height, width) out, resize to `size` = (height, width), mirror if `flip`."""
    top, left, height, width = rectangle
    image = resize(image[top : top + height, left : left + width], size, resample)
    return image[:, ::-1] if flip else image


def normalize(
    image: UInt8[np.ndarray, "h w c"],
    mean: Sequence[float] = imagenet.MEAN,
    std: Sequence[float] = imagenet.STD,
) -> Float[np.ndarray, "h w c"]:
    """Float32 of uint8 pixels: (image / 255 - mean) / std; mean = std = 0.5 gives [-1, 1]."""
    scaled = image.astype(np.float32) / np.float32(255)
    return (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def standardize_depth(
    depth: Float[np.ndarray, "*shape"],
) -> Float[np.ndarray, "*shape"]:
    """Robust standardization of one picture: mean and variance without the lowest and highest
    tenth of the pixels (docs/published.md#modalities, depth)."""
    ordered = np.sort(depth, axis=None)
    trimmed = ordered[int(0.1 * ordered.size) : int(0.9 * ordered.size)]
    return (depth - trimmed.mean()) / np.sqrt(trimmed.var(ddof=1) + 1e-6)
