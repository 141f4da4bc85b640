"""Signals derived from what the camera sees: labels, boxes, edges, features and statistics."""

from collections.abc import Sequence
from typing import cast

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from fourm_jax.modalities import classes
from fourm_jax.scenes import edges, features, render
from fourm_jax.scenes import layout as scene_layout

BACKGROUND, GROUND = 0, 1
CLASSES = classes.SCENES
MIN_VISIBLE = 15 / 1024  # share of the pixels from which on an object is named
LUMA = (0.299, 0.587, 0.114)
POSE_FIELDS = ("x", "y", "z", "sin_yaw", "cos_yaw", "width", "height")


def derive(layout: scene_layout.Layout, views: render.Views) -> dict[str, Array]:
    """Compute every per-scene array, the k objects sorted by visible area, largest first.

    Returns: rgb uint8 [b h w 3]; depth f32 [b h w]; normal f32 [b h w 3]; semseg, instance, edge,
    instance_edge, grey, colour_bin uint8 [b h w]; feature f32 [b h/4 w/4 c]; feature_global f32
    [b c]; boxes f32 [b k 4] (xmin ymin xmax ymax in 0..1); poses f32 [b k 7]; num_objects int32
    [b]; shape, colour int32 and large bool [b k]; and the float32 statistics [b] of `_statistics`.
    """
    area = jnp.stack(
        [jnp.sum(views.object == index, axis=(1, 2)) for index in range(scene_layout.MAX_OBJECTS)],
        axis=-1,
    )
    share = area / (views.depth.shape[1] * views.depth.shape[2])
    visible = share >= MIN_VISIBLE
    order = jnp.argsort(-area, axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1)

    rgb = jnp.stack([jnp.round(plane * 255).astype(jnp.uint8) for plane in views.rgb], axis=-1)
    channels = tuple(rgb[..., channel].astype(jnp.float32) / 255 for channel in range(3))
    weighted = (weight * channel for weight, channel in zip(LUMA, channels, strict=True))
    luma = cast(Array, sum(weighted))
    semseg = jnp.where(views.ground, GROUND, BACKGROUND).astype(jnp.uint8)
    instance = jnp.zeros(views.object.shape, jnp.uint8)
    for index in range(scene_layout.MAX_OBJECTS):
        here = views.object == index
        label = (layout.shape[:, index] + len(CLASSES) - len(scene_layout.SHAPES)).astype(jnp.uint8)
        semseg = jnp.where(here, label[:, None, None], semseg)
        instance = jnp.where(here, rank[:, index, None, None].astype(jnp.uint8) + 1, instance)
    edge = edges.canny(channels)
    boundary = edges.boundaries(instance)

    def by_area(values):
        return jnp.take_along_axis(
            values, order.reshape(order.shape + (1,) * (values.ndim - 2)), axis=1
        )

    scene = {
        "rgb": rgb,
        "depth": views.depth,
        "normal": jnp.stack(views.normal, axis=-1),
        "semseg": semseg,
        "instance": instance,
        "edge": edge.astype(jnp.uint8) * 255,
        "instance_edge": boundary.astype(jnp.uint8) * 255,
        "boxes": _boxes(instance),
        "poses": by_area(_poses(layout)) * by_area(visible)[..., None],
        "num_objects": jnp.sum(visible, axis=-1, dtype=jnp.int32),
        "shape": by_area(layout.shape),
        "colour": by_area(layout.colour),
        "large": by_area(layout.large),
        "grey": jnp.round(luma * 255).astype(jnp.uint8),
        "colour_bin": _colour_bins(rgb),
        "feature": features.dense(views, luma),
    }
    scene |= _statistics(layout, views, channels, luma, boundary, share)
    scene["feature_global"] = features.whole(layout, views, channels, scene, edge, share)
    return scene


def _boxes(instance: UInt8[Array, "b h w"]) -> Float[Array, "b k 4"]:
    """Box of each instance's visible pixels, as shares of the image; zeros if it has none."""
    boxes = []
    for index in range(scene_layout.MAX_OBJECTS):
        here = instance == index + 1
        low, high = [], []
        for axis in (1, 2):  # pixels of a column, then of a row
            line = jnp.any(here, axis=axis)
            low.append(jnp.argmax(line, axis=-1) / line.shape[-1])
            high.append(1 - jnp.argmax(line[:, ::-1], axis=-1) / line.shape[-1])
        exists = jnp.any(here, axis=(1, 2))
        boxes.append(jnp.stack(low + high, axis=-1) * exists[:, None])
    return jnp.stack(boxes, axis=1).astype(jnp.float32)


def _poses(layout: scene_layout.Layout) -> Float[Array, "b k 7"]:
    """POSE_FIELDS in metres, camera frame (x right, y up, z towards the viewer)."""
    x, forward = layout.position[..., 0], layout.position[..., 1]
    up = layout.half_height - layout.camera_height[:, None]
    cos, sin = jnp.cos(layout.camera_pitch)[:, None], jnp.sin(layout.camera_pitch)[:, None]
    return jnp.stack(
        [
            x,
            forward * sin + up * cos,
            up * sin - forward * cos,
            jnp.sin(layout.yaw),
            jnp.cos(layout.yaw),
            2 * layout.half_width,
            2 * layout.half_height,
        ],
        axis=-1,
    )


def _colour_bins(rgb: UInt8[Array, "b h w 3"]) -> UInt8[Array, "b h w"]:
    """One of 64 bins: four levels per channel."""
    level = rgb >> 6
    return level[..., 0] * 16 + level[..., 1] * 4 + level[..., 2]


def _statistics(
    layout: scene_layout.Layout,
    views: render.Views,
    channels: Sequence[Float[Array, "b h w"]],
    luma: Float[Array, "b h w"],
    boundary: Bool[Array, "b h w"],
    share: Float[Array, "b k"],
) -> dict[str, Array]:
    """Statistics of the picture and of the scene; see scene_text.MEASURED_FIELDS."""
    red, green, blue = channels
    opponent, yellow = red - green, 0.5 * (red + green) - blue
    highest = jnp.maximum(jnp.maximum(red, green), blue)
    lowest = jnp.minimum(jnp.minimum(red, green), blue)
    unoccluded = jnp.sum(views.num_unoccluded, axis=-1) / (luma.shape[1] * luma.shape[2])
    return {
        "brightness": 255 * features.mean(luma),
        "contrast": 255 * features.deviation(luma),
        # Hasler and Süsstrunk (2003), "Measuring colourfulness in natural images", eq. for M3.
        "colorfulness": 255 * jnp.hypot(features.deviation(opponent), features.deviation(yellow))
        + 0.3 * 255 * jnp.hypot(features.mean(opponent), features.mean(yellow)),
        "saturation": 255 * features.mean((highest - lowest) / jnp.maximum(highest, 1e-3)),
        "objectness": jnp.sum(share, axis=-1),
        "geometric_complexity": features.mean(boundary.astype(jnp.float32)),
        "occlusion_score": 1 - jnp.sum(share, axis=-1) / jnp.maximum(unoccluded, 1e-6),
        "camera_height": layout.camera_height,
        "camera_pitch": jnp.rad2deg(layout.camera_pitch),
    }
