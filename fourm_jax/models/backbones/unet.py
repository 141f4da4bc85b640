"""The patched UNet decoder of diffusion tokenizers (Dhariwal and Nichol 2021).

Source: docs/published.md#diffusion.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from fourm_jax.models.backbones import mlp, unet_parts
from fourm_jax.ops import attention


class ImageAttention(nn.Module):
    """x + out(attention(norm(x))) with one head over all positions; the projection starts at 0."""

    num_groups: int = 32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        batch, rows, columns, channels = x.shape
        hidden = unet_parts.GroupNorm(self.num_groups, self.dtype, name="norm")(x)
        hidden = nn.Dense(3 * channels, dtype=self.dtype, name="qkv")(hidden)
        q, k, v = jnp.split(hidden.reshape(batch, rows * columns, 1, 3 * channels), 3, axis=-1)
        hidden = attention.attend(q, k, v).reshape(batch, rows, columns, channels)
        zeros = nn.initializers.zeros
        return x + nn.Dense(channels, dtype=self.dtype, kernel_init=zeros, name="out")(hidden)


class Stage(nn.Module):
    """One entry of the down or up path: residual block, attention, resampling, in this order."""

    channels: int
    attention: bool = False
    upsample: bool = False
    num_groups: int = 32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], time: Float[Array, "b t"]
    ) -> Float[Array, "b y x o"]:
        shared: dict[str, Any] = {"num_groups": self.num_groups, "dtype": self.dtype}
        x = unet_parts.ResBlock(self.channels, **shared, name="resnet")(x, time)
        if self.attention:
            x = ImageAttention(**shared, name="attention")(x)
        if self.upsample:
            x = unet_parts.Upsample(self.dtype, name="upsample")(x)
        return x


class UNet(nn.Module):
    """Noised image and condition grid -> prediction of the image's shape.

    Pixels are folded into channels by `patch_size`; the condition, repeated to the same grid,
    joins the channels. A condition that is dropped is 0.

    Attributes:
      num_channels: of the image.
      dim: channels of the first level.
      multipliers: channels of each level, times `dim`; every level halves rows and columns.
      blocks_per_level: residual blocks on the way down (one more on the way up).
      attention_at: downsampling factors (of the folded image) whose blocks attend.
      patch_size: pixels folded per side.
      num_groups: of the norms.
      dtype: of the arithmetic; parameters, time embedding and output are float32.
    """

    num_channels: int
    dim: int = 256
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks_per_level: int = 3
    attention_at: tuple[int, ...] = (4, 8)
    patch_size: int = 4
    num_groups: int = 32
    dtype: DTypeLike = jnp.float32

    @property
    def multiple(self) -> int:
        """Rows and columns of images are multiples of this."""
        return self.patch_size * 2 ** (len(self.multipliers) - 1)

    def down_path(self) -> list[tuple[str, int, bool]]:
        """(kind, channels, attention) of every entry after the first convolution."""
        path = []
        for level, multiplier in enumerate(self.multipliers):
            stage = ("stage", multiplier * self.dim, 2**level in self.attention_at)
            path += [stage] * self.blocks_per_level
            if level < len(self.multipliers) - 1:
                path.append(("downsample", multiplier * self.dim, False))
        return path

    def up_path(self) -> list[tuple[int, bool, bool]]:
        """(channels, attention, upsample) of every entry."""
        path = []
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for i in range(self.blocks_per_level + 1):
                last = i == self.blocks_per_level and level > 0
                path.append((multiplier * self.dim, 2**level in self.attention_at, last))
        return path

    @nn.compact
    def __call__(
        self,
        noised: Float[Array, "b h w c"],
        times: Int[Array, "b"],
        condition: Float[Array, "b y x l"],
        condition_mask: Bool[Array, "b y x"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b h w c"]:
        """Predict; `condition_mask` is True where the condition is used, None = everywhere."""
        unet_parts.check_size(noised, self.multiple)
        shared: dict[str, Any] = {"num_groups": self.num_groups, "dtype": self.dtype}
        if condition_mask is not None:
            condition = jnp.where(condition_mask[..., None], condition, 0)
        x = mlp.space_to_depth(noised, self.patch_size)
        condition = unet_parts.resize_nearest(condition, (x.shape[1], x.shape[2]))
        x = jnp.concatenate([x, condition], axis=-1).astype(self.dtype)
        time = unet_parts.TimeEmbedding(self.dim, name="time")(times)

        x = nn.Conv(self.multipliers[0] * self.dim, (3, 3), dtype=self.dtype, name="down_0")(x)
        skips = [x]
        for i, (kind, channels, attends) in enumerate(self.down_path(), start=1):
            if kind == "downsample":
                x = unet_parts.Downsample(self.dtype, name=f"down_{i}")(x)
            else:
                x = Stage(channels, attends, **shared, name=f"down_{i}")(x, time)
            skips.append(x)

        x = Stage(x.shape[-1], attention=True, **shared, name="middle_0")(x, time)
        x = Stage(x.shape[-1], **shared, name="middle_1")(x, time)

        for i, (channels, attends, upsample) in enumerate(self.up_path()):
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = Stage(channels, attends, upsample, **shared, name=f"up_{i}")(x, time)

        x = nn.silu(unet_parts.GroupNorm(**shared, name="norm")(x)).astype(jnp.float32)
        features = self.patch_size**2 * self.num_channels
        zeros = nn.initializers.zeros
        x = nn.Conv(features, (3, 3), kernel_init=zeros, name="pixels_out")(x)
        return mlp.depth_to_space(x, self.patch_size)
