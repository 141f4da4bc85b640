"""Pictures larger than a model takes: overlapping tiles, and the blend of what is predicted."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, Shaped


def starts(length: int, tile: int, overlap: int) -> Int[np.ndarray, "n"]:
    """First pixels of the tiles along an axis: they cover it, evenly spread, `overlap` or more.

    Raises:
      ValueError: an axis shorter than a tile, or an overlap that is none.
    """
    if length < tile or not 0 <= overlap < tile:
        raise ValueError(f"tiles of {tile} with overlap {overlap} on {length} pixels")
    count = 1 + -(-(length - tile) // (tile - overlap))
    return np.rint(np.linspace(0, length - tile, count)).astype(int)


def predict(
    picture: Shaped[np.ndarray, "h w *c"],
    tile: tuple[int, int],
    overlap: int,
    predict_tiles: Callable[[Shaped[np.ndarray, "n y x *c"]], Float[np.ndarray, "n y x k"]],
) -> Float[np.ndarray, "h w k"]:
    """Predict every tile, then average, each pixel weighted by its distance to the tile's border.

    Args:
      tile: (height, width) that the model takes.
      overlap: pixels that neighbours share, at least.
      predict_tiles: the model on all tiles of the picture at once.
    """
    height, width = picture.shape[:2]
    corners = [
        (top, left)
        for top in starts(height, tile[0], overlap)
        for left in starts(width, tile[1], overlap)
    ]
    cut = [picture[top : top + tile[0], left : left + tile[1]] for top, left in corners]
    predicted = predict_tiles(np.stack(cut))
    weight = np.minimum.outer(_ramp(tile[0]), _ramp(tile[1]))[..., None]
    total = np.zeros((height, width, predicted.shape[-1]))
    weights = np.zeros((height, width, 1))
    for (top, left), values in zip(corners, predicted, strict=True):
        place = (slice(top, top + tile[0]), slice(left, left + tile[1]))
        total[place] += weight * values
        weights[place] += weight
    return (total / weights).astype(np.float32)


def _ramp(length: int) -> Float[np.ndarray, "n"]:
    """Distance to the nearer end, at least a half."""
    place = np.arange(length)
    return np.minimum(place, place[::-1]) + 0.5
