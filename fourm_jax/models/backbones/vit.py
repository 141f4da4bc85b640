"""ViT backbones of tokenizers: an image to a grid of features and back.

Source: docs/published.md#tokenizers.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fourm_jax.models import layers, transformer
from fourm_jax.models.backbones import mlp
from fourm_jax.ops import interpolate, posemb

MLP_RATIO = 4
DTYPES = ("float32", "bfloat16")


class Encoder(nn.Module):
    """Patches, positions, pre-norm blocks without a final norm; any size in whole patches.

    Attributes:
      dim, depth, num_heads: of the Transformer.
      patch_size: pixels per token side; 1 reads a feature map.
      grid: (rows, columns) at which positions are not interpolated.
      post_mlp: add MLP_tanh(norm(x)) at the end, in float32.
      dtype: of the Transformer's arithmetic; parameters are float32.
    """

    dim: int
    depth: int
    num_heads: int
    patch_size: int
    grid: tuple[int, int]
    post_mlp: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y x d"]:
        x = mlp.space_to_depth(x.astype(self.dtype), self.patch_size)
        x = nn.Dense(self.dim, dtype=self.dtype, name="patches_in")(x)
        return _trunk(self, x)


class Decoder(nn.Module):
    """Mirror of the encoder; with `out_conv` two ConvNeXt blocks on the pixels (SAM masks).

    Attributes: as the encoder's, and
      num_channels: that it predicts.
    """

    dim: int
    depth: int
    num_heads: int
    patch_size: int
    num_channels: int
    grid: tuple[int, int]
    post_mlp: bool = True
    out_conv: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x d"]) -> Float[Array, "b h w c"]:
        x = _trunk(self, x.astype(self.dtype)).astype(jnp.float32)
        x = nn.Dense(self.patch_size**2 * self.num_channels, name="patches_out")(x)
        x = mlp.depth_to_space(x, self.patch_size)
        if self.out_conv:
            for i in range(2):
                x = ConvNeXtBlock(self.num_channels, name=f"out_conv_{i}")(x)
        return x


def _trunk(backbone: Encoder | Decoder, x: Float[Array, "b y x d"]) -> Float[Array, "b y x d"]:
    """Positions, blocks and the last MLP, inside the compact call of `backbone`."""
    batch, rows, columns, dim = x.shape
    positions = position_table(backbone.grid, (rows, columns), dim)
    x = x + jnp.asarray(positions, x.dtype)
    blocks = nn.scan(
        transformer.Block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast,) * 4,
        length=backbone.depth,
    )
    x, _ = blocks(
        num_heads=backbone.num_heads,
        mlp="gelu",
        mlp_dim=MLP_RATIO * dim,
        cross=False,
        use_bias=True,
        qk_norm=False,
        dtype=backbone.dtype,
        name="blocks",
    )(x.reshape(batch, rows * columns, dim), None, None, None, None)
    if backbone.post_mlp:
        x = x.astype(jnp.float32)
        x = x + TanhMLP(dim, name="post_mlp")(x)
    return x.astype(jnp.float32).reshape(batch, rows, columns, dim)


def position_table(
    nominal: tuple[int, int], actual: tuple[int, int], dim: int
) -> Float[np.ndarray, "y x d"]:
    """Sin-cos positions of the `nominal` grid, bicubically resized to the `actual` one.

    Raises:
      ValueError: `dim` is not a multiple of 4, or a table is too large.
    """
    posemb.check_size(actual[0] * actual[1], dim)
    table = posemb.sincos_2d(*nominal, dim).reshape(*nominal, dim)
    return table if actual == nominal else interpolate.resize_bicubic(table, actual)


def compute_dtype(name: str) -> jnp.dtype:
    """Return the type of a backbone's arithmetic by name.

    Raises:
      ValueError: neither float32 nor bfloat16.
    """
    if name not in DTYPES:
        raise ValueError(f"dtype {name!r}, allowed: {DTYPES}")
    return jnp.dtype(name)


class TanhMLP(nn.Module):
    """fc2 tanh(fc1 norm(x)), hidden width 4 d."""

    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        x = layers.norm(use_bias=True, dtype=jnp.float32, name="norm")(x)
        return nn.Dense(self.dim, name="fc2")(jnp.tanh(nn.Dense(4 * self.dim, name="fc1")(x)))


class ConvNeXtBlock(nn.Module):
    """x + scale · W2 gelu(W1 norm(depthwise 7 x 7 conv(x))) (Liu et al. 2022, figure 4)."""

    num_channels: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        channels = self.num_channels
        hidden = nn.Conv(channels, (7, 7), feature_group_count=channels, name="depthwise")(x)
        hidden = layers.norm(use_bias=True, dtype=jnp.float32, name="norm")(hidden)
        hidden = nn.gelu(nn.Dense(4 * channels, name="fc1")(hidden), approximate=False)
        hidden = nn.Dense(channels, name="fc2")(hidden)
        return x + hidden * self.param("scale", nn.initializers.constant(1e-6), (channels,))
