"""Edges of pictures (Canny) and of instance maps."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped, UInt8

LOW_EDGE, HIGH_EDGE = 0.05, 0.12  # weak and strong: gradient per pixel of a channel in 0..1


def canny(channels: Sequence[Float[Array, "b h w"]]) -> Bool[Array, "b h w"]:
    """Edges after Canny (1986): smooth, gradient, thin across the edge, follow weak from strong.

    Channels are in 0..1; each pixel takes the gradient of the channel where it is largest, because
    many colours differ little in brightness. Hysteresis follows a weak edge for eight pixels.
    """
    across: Array | float = 0.0
    along: Array | float = 0.0
    square: Array | float = 0.0
    for channel in channels:
        channel_across, channel_along = _sobel(_smooth(_smooth(channel, 1), 2))
        channel_square = channel_across**2 + channel_along**2
        larger = channel_square > square
        across = jnp.where(larger, channel_across, across)
        along = jnp.where(larger, channel_along, along)
        square = jnp.maximum(channel_square, square)
    strength = jnp.sqrt(square)
    # The two neighbours across the edge, with the gradient rounded to one of four directions.
    flat, steep = (
        jnp.abs(along) < 0.4142 * jnp.abs(across),
        jnp.abs(across) < 0.4142 * jnp.abs(along),
    )
    falling = across * along > 0

    def neighbour(sign):
        diagonal = jnp.where(falling, shift(strength, sign, sign), shift(strength, sign, -sign))
        upright = jnp.where(steep, shift(strength, sign, 0), diagonal)
        return jnp.where(flat, shift(strength, 0, sign), upright)

    # Strict on one side only, so that a plateau of two equal pixels keeps exactly one.
    ridge = (strength > neighbour(-1)) & (strength >= neighbour(1))
    weak, strong = ridge & (strength > LOW_EDGE), ridge & (strength > HIGH_EDGE)

    def follow(_, found):
        beside = found | shift(found, 0, 1) | shift(found, 0, -1)
        return (beside | shift(beside, 1, 0) | shift(beside, -1, 0)) & weak

    return jax.lax.fori_loop(0, 8, follow, strong)


def shift(
    image: Shaped[Array, "b h w"], down: int, right: int, mode: str = "constant"
) -> Shaped[Array, "b h w"]:
    """image[y + down, x + right] for steps of at most 1; outside is zero, or as np.pad's mode."""
    height, width = image.shape[1:]
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1)), mode=mode)
    return padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def _smooth(image: Array, axis: int) -> Array:
    """Binomial filter 1 2 1 along rows (1) or columns (2), edges repeated."""
    step = (1, 0) if axis == 1 else (0, 1)
    before = shift(image, -step[0], -step[1], "edge")
    return (before + 2 * image + shift(image, *step, "edge")) / 4


def _sobel(image: Array) -> tuple[Array, Array]:
    """Gradient per pixel across columns and along rows."""
    rows, columns = _smooth(image, 1), _smooth(image, 2)
    across = (shift(rows, 0, 1, "edge") - shift(rows, 0, -1, "edge")) / 2
    along = (shift(columns, 1, 0, "edge") - shift(columns, -1, 0, "edge")) / 2
    return across, along


def boundaries(instance: UInt8[Array, "b h w"]) -> Bool[Array, "b h w"]:
    """Pixels whose right or lower neighbour belongs to another instance."""
    right, below = shift(instance, 0, 1, "edge"), shift(instance, 1, 0, "edge")
    return (instance != right) | (instance != below)
