"""The UViT decoder of diffusion tokenizers: convolutions around a Transformer.

Source: docs/published.md#diffusion.

Hoogeboom et al. 2023 (simple diffusion), with the long skips of Bao et al. 2022.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from fourm_jax.models.backbones import mlp, unet_parts, uvit_bottleneck

Conditioning = uvit_bottleneck.Conditioning


class Level(nn.Module):
    """Residual blocks at one resolution; inputs of the way up are joined by `skips`, last first."""

    channels: int
    depth: int
    num_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        time: Float[Array, "b t"],
        skips: list[Array] | None = None,
    ) -> tuple[Float[Array, "b h w o"], list[Array]]:
        """Return the result and the results of all blocks."""
        outputs = []
        for i in range(self.depth):
            if skips is not None:
                x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = unet_parts.ResBlock(self.channels, self.num_groups, self.dtype, name=f"resnet_{i}")(
                x, time
            )
            outputs.append(x)
        return x, outputs


class UViT(nn.Module):
    """Noised image and condition grid -> prediction of the image's shape.

    Attributes:
      num_channels: of the image.
      patch_size: of the first, strided convolution.
      channels: of each level; there is a halving between levels.
      blocks_per_level: residual blocks on the way down (one more on the way up).
      downsample_bottleneck: halve once more before the Transformer.
      dim, depth, num_heads, long_skip: of the Transformer; with `long_skip` the depth is odd and
        blocks of the first half feed those of the second.
      conditioning: "concat" adds the projected condition to the tokens; "xattn" attends to it.
      dropout: of attention and MLP outputs in the Transformer (rng stream "quantizer", the one
        stream of tokenizers).
      grid: side of the position table, resized to the actual grid.
      num_groups: of the norms of the convolutional part.
      dtype: of the arithmetic; parameters, time embedding and output are float32.
    """

    num_channels: int
    patch_size: int = 4
    channels: tuple[int, ...] = (128, 256)
    blocks_per_level: int = 2
    downsample_bottleneck: bool = True
    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    long_skip: bool = False
    conditioning: Conditioning = "concat"
    dropout: float = 0.0
    grid: int = 32
    num_groups: int = 32
    dtype: DTypeLike = jnp.float32

    @property
    def multiple(self) -> int:
        """Rows and columns of images are multiples of this."""
        return self.patch_size * 2 ** (len(self.channels) - 1 + self.downsample_bottleneck)

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
        time = unet_parts.TimeEmbedding(self.channels[0], name="time")(times)
        x = mlp.space_to_depth(noised.astype(self.dtype), self.patch_size)
        x = nn.Dense(self.channels[0], dtype=self.dtype, name="patches_in")(x)
        skips, last = [x], len(self.channels) - 1
        for i, channels in enumerate(self.channels):
            x, outputs = Level(channels, self.blocks_per_level, **shared, name=f"down_{i}")(x, time)
            skips += outputs
            if i < last:
                x = unet_parts.Downsample(self.dtype, name=f"downsample_{i}")(x)
                skips.append(x)
        if self.downsample_bottleneck:
            x = unet_parts.Downsample(self.dtype, name="downsample_bottleneck")(x)

        x = uvit_bottleneck.Bottleneck(
            dim=self.dim,
            depth=self.depth,
            num_heads=self.num_heads,
            long_skip=self.long_skip,
            conditioning=self.conditioning,
            dropout=self.dropout,
            grid=self.grid,
            dtype=self.dtype,
            name="bottleneck",
        )(x, time, condition, condition_mask, train)

        if self.downsample_bottleneck:
            x = unet_parts.Upsample(self.dtype, name="upsample_bottleneck")(x)
        for i, channels in enumerate(reversed(self.channels)):
            x, _ = Level(channels, self.blocks_per_level + 1, **shared, name=f"up_{i}")(
                x, time, skips
            )
            if i < last:
                x = unet_parts.Upsample(self.dtype, name=f"upsample_{i}")(x)
        x = nn.silu(unet_parts.GroupNorm(**shared, name="norm")(x)).astype(jnp.float32)
        x = nn.Dense(self.patch_size**2 * self.num_channels, use_bias=False, name="patches_out")(x)
        bias = self.param("pixel_bias", nn.initializers.zeros, (self.num_channels,))
        return mlp.depth_to_space(x, self.patch_size) + bias
