"""Parts that both diffusion decoders are made of: time embedding, residual block, resampling."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

NORM_EPSILON = 1e-5
MAX_PERIOD = 10_000.0
# Downsampling pads one pixel on every side, also where "SAME" would pad one side only.
PAD_ONE = ((1, 1), (1, 1))


def time_features(times: Int[Array, "b"], dim: int) -> Float[Array, "b d"]:
    """Cosines, then sines, of times at geometrically spaced frequencies 1 … 1/10000."""
    frequencies = jnp.exp(-jnp.log(MAX_PERIOD) * jnp.arange(dim // 2) / (dim // 2))
    angles = times.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimeEmbedding(nn.Module):
    """fc2(silu(fc1(features))), four times as wide as the features, in float32."""

    features: int

    @nn.compact
    def __call__(self, times: Int[Array, "b"]) -> Float[Array, "b t"]:
        width = 4 * self.features
        hidden = nn.Dense(width, name="fc1")(time_features(times, self.features))
        return nn.Dense(width, name="fc2")(nn.silu(hidden))


class GroupNorm(nn.Module):
    """Norm over groups of neighbouring channels, statistics in float32."""

    num_groups: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return nn.GroupNorm(
            self.num_groups,
            epsilon=NORM_EPSILON,
            use_fast_variance=False,
            dtype=self.dtype,
            name="groups",
        )(x)


class ResBlock(nn.Module):
    """skip(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + time))); conv2 starts at 0.

    Attributes:
      channels: of the output; where the input has others, a 1 x 1 convolution adapts the skip.
    """

    channels: int
    num_groups: int = 32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], time: Float[Array, "b t"]
    ) -> Float[Array, "b h w o"]:
        norm: dict[str, Any] = {"num_groups": self.num_groups, "dtype": self.dtype}
        conv: dict[str, Any] = {"features": self.channels, "dtype": self.dtype}
        hidden = nn.silu(GroupNorm(**norm, name="norm1")(x))
        hidden = nn.Conv(kernel_size=(3, 3), **conv, name="conv1")(hidden)
        shift = nn.Dense(self.channels, dtype=self.dtype, name="time")(nn.silu(time))
        hidden = nn.silu(GroupNorm(**norm, name="norm2")(hidden + shift[:, None, None]))
        zeros: dict[str, Any] = {"kernel_init": nn.initializers.zeros}
        hidden = nn.Conv(kernel_size=(3, 3), **conv, **zeros, name="conv2")(hidden)
        if x.shape[-1] != self.channels:
            x = nn.Conv(kernel_size=(1, 1), **conv, name="skip")(x)
        return x + hidden


class Downsample(nn.Module):
    """Half the rows and columns by a strided 3 x 3 convolution."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y x c"]:
        return nn.Conv(
            x.shape[-1], (3, 3), strides=2, padding=PAD_ONE, dtype=self.dtype, name="conv"
        )(x)


class Upsample(nn.Module):
    """Twice the rows and columns: repeat, then a 3 x 3 convolution."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y x c"]:
        x = resize_nearest(x, (2 * x.shape[1], 2 * x.shape[2]))
        return nn.Conv(x.shape[-1], (3, 3), dtype=self.dtype, name="conv")(x)


def resize_nearest(
    x: Shaped[Array, "b h w *c"], size: tuple[int, int]
) -> Shaped[Array, "b y x *c"]:
    """Take, for every output pixel, the input pixel ⌊i · inputs / outputs⌋."""
    rows = jnp.arange(size[0]) * x.shape[1] // size[0]
    columns = jnp.arange(size[1]) * x.shape[2] // size[1]
    return x[:, rows][:, :, columns]


def check_size(image: jax.Array, multiple: int) -> None:
    """Raise ValueError unless rows and columns are multiples of `multiple`."""
    if image.shape[1] % multiple or image.shape[2] % multiple:
        raise ValueError(
            f"diffusion decoder: image {image.shape[1]} x {image.shape[2]}, allowed: sides "
            f"divisible by {multiple}"
        )
