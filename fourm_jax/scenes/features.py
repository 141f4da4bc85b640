"""Dense and global feature vectors of a scene: named, standardized statistics of its content."""

from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from fourm_jax.scenes import edges, render
from fourm_jax.scenes import layout as scene_layout

CELL = 4  # pixels per side of one feature cell

# (mean, standard deviation) over 4,096 training scenes at 32 px: each channel is standardized.
FEATURE_CHANNELS = {
    "albedo_red": (0.559, 0.175),
    "albedo_green": (0.542, 0.150),
    "albedo_blue": (0.549, 0.178),
    "normal_x": (0.000, 0.182),
    "normal_y": (0.583, 0.435),
    "normal_z": (0.523, 0.229),
    "nearness": (0.225, 0.105),
    "objectness": (0.230, 0.367),
    "gradient_across": (0.039, 0.052),
    "gradient_along": (0.059, 0.054),
    "gradient_falling": (0.073, 0.065),
    "gradient_rising": (0.073, 0.065),
}
GLOBAL_FEATURES = {
    "share_sphere": (0.043, 0.061),
    "share_box": (0.073, 0.108),
    "share_cylinder": (0.068, 0.102),
    "share_cone": (0.045, 0.068),
    "share_red": (0.028, 0.063),
    "share_orange": (0.028, 0.061),
    "share_yellow": (0.029, 0.062),
    "share_green": (0.028, 0.061),
    "share_cyan": (0.030, 0.064),
    "share_blue": (0.029, 0.062),
    "share_purple": (0.029, 0.063),
    "share_pink": (0.028, 0.061),
    "share_ground": (0.647, 0.128),
    "share_objects": (0.230, 0.113),
    "mean_red": (0.511, 0.074),
    "mean_green": (0.509, 0.071),
    "mean_blue": (0.525, 0.077),
    "deviation_red": (0.161, 0.044),
    "deviation_green": (0.168, 0.044),
    "deviation_blue": (0.194, 0.049),
    "mean_normal_x": (0.000, 0.033),
    "mean_normal_y": (0.583, 0.132),
    "mean_normal_z": (0.523, 0.048),
    "mean_depth": (5.834, 0.787),
    "deviation_depth": (2.926, 0.200),
    "edge_density": (0.088, 0.032),
    "num_objects": (2.201, 0.926),
    "centroid_x": (0.500, 0.146),
    "centroid_y": (0.478, 0.104),
    "camera_height": (2.093, 0.287),
    "camera_pitch": (20.470, 3.181),
    "light_height": (0.759, 0.097),
}


def mean(plane: Array) -> Float[Array, "b"]:
    """Mean over the pixels of each scene."""
    return jnp.mean(plane, axis=(1, 2))


def deviation(plane: Array) -> Float[Array, "b"]:
    """Standard deviation over the pixels of each scene."""
    return jnp.std(plane, axis=(1, 2))


def _share_of(kind: Array, share: Array, count: int) -> Float[Array, "b count"]:
    """Share of the pixels that shows objects of each kind."""
    return jnp.sum(jax.nn.one_hot(kind, count) * share[..., None], axis=1)


def _standardize(channels: list[Array], table: dict[str, tuple[float, float]]) -> Array:
    scale = np.array(list(table.values()), np.float32)
    return (jnp.stack(channels, axis=-1) - scale[:, 0]) / scale[:, 1]


def dense(views: render.Views, luma: Float[Array, "b h w"]) -> Array:
    """Dense features: FEATURE_CHANNELS averaged over cells of 4 × 4 pixels and standardized.

    What a scene network could know of a cell (surface colour, orientation, nearness, objectness)
    and the gradient energy of the picture in four directions.
    """
    directions = ((0, 1), (1, 0), (1, 1), (1, -1))
    planes = [
        *views.albedo,
        *views.normal,
        1 / views.depth,
        (views.object >= 0).astype(jnp.float32),
        *(
            jnp.abs(
                edges.shift(luma, down, right, "edge") - edges.shift(luma, -down, -right, "edge")
            )
            for down, right in directions
        ),
    ]
    return _standardize([_pool(plane) for plane in planes], FEATURE_CHANNELS)


def _pool(plane: Float[Array, "b h w"]) -> Float[Array, "b h/4 w/4"]:
    """Mean over cells of CELL × CELL pixels, as slices: a reduction would not vectorize."""
    rows = cast(Array, sum(plane[:, offset::CELL] for offset in range(CELL)))
    return cast(Array, sum(rows[..., offset::CELL] for offset in range(CELL))) / CELL**2


def whole(
    layout: scene_layout.Layout,
    views: render.Views,
    channels: Sequence[Float[Array, "b h w"]],
    scene: dict[str, Array],
    edge: Bool[Array, "b h w"],
    share: Float[Array, "b k"],
) -> Float[Array, "b c"]:
    """GLOBAL_FEATURES: what is in the picture, where, how light and how far; standardized."""
    shapes = _share_of(layout.shape, share, len(scene_layout.SHAPES))
    colours = _share_of(layout.colour, share, len(scene_layout.COLOURS))
    centre = (scene["boxes"][..., :2] + scene["boxes"][..., 2:]) / 2
    weight = jnp.sort(share, axis=-1)[:, ::-1]
    centroid = jnp.sum(centre * weight[..., None], axis=1)
    centroid /= jnp.maximum(jnp.sum(weight, axis=1), 1e-3)[:, None]
    values = [
        *jnp.moveaxis(shapes, -1, 0),
        *jnp.moveaxis(colours, -1, 0),
        mean(views.ground.astype(jnp.float32)),
        scene["objectness"],
        *(mean(channel) for channel in channels),
        *(deviation(channel) for channel in channels),
        *(mean(plane) for plane in views.normal),
        mean(views.depth),
        deviation(views.depth),
        mean(edge.astype(jnp.float32)),
        scene["num_objects"].astype(jnp.float32),
        centroid[:, 0],
        centroid[:, 1],
        scene["camera_height"],
        scene["camera_pitch"],
        layout.light[:, 2],
    ]
    return _standardize(values, GLOBAL_FEATURES)
