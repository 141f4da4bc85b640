"""Pointwise MLP backbones: the published bottleneck MLPs and patch MLPs for small images."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

CONTEXT_DIM = 32  # of what a token sees of each of its neighbours


class ResidualMLP(nn.Module):
    """x + W2 gelu(W1 norm(x)), applied to every position on its own."""

    dim: int
    expansion: int = 4

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        hidden = nn.LayerNorm(epsilon=1e-5, name="norm")(x)
        hidden = nn.Dense(self.dim * self.expansion, name="fc1")(hidden)
        return x + nn.Dense(self.dim, name="fc2")(nn.gelu(hidden, approximate=False))


class BottleneckMLP(nn.Module):
    """Linear in, `depth` residual MLPs, linear out (published `BottleneckMLP/B_n-Wi_w`)."""

    dim: int
    depth: int
    output_dim: int
    expansion: int = 4

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... o"]:
        x = nn.Dense(self.dim, name="linear_in")(x)
        for i in range(self.depth):
            x = ResidualMLP(self.dim, self.expansion, name=f"block_{i}")(x)
        return nn.Dense(self.output_dim, name="linear_out")(x)


class NormLinear(nn.Module):
    """W norm(x): one layer of `LinearStack`."""

    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        return nn.Dense(self.dim, name="fc1")(nn.LayerNorm(epsilon=1e-5, name="norm")(x))


class LinearStack(nn.Module):
    """Published `MLP/B_n-Wi_w`: norms and linear layers without any nonlinearity.

    Source: docs/published.md#defects.
    """

    dim: int
    depth: int
    output_dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... o"]:
        x = nn.Dense(self.dim, name="linear_in")(x)
        for i in range(self.depth):
            x = NormLinear(self.dim, name=f"block_{i}")(x)
        return nn.Dense(self.output_dim, name="linear_out")(x)


class PatchMLPEncoder(nn.Module):
    """Patches of an image through a pointwise residual MLP: [b, H, W, c] -> [b, H/p, W/p, dim]."""

    patch_size: int
    dim: int
    depth: int
    expansion: int = 2

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y x d"]:
        x = nn.Dense(self.dim, name="patches_in")(space_to_depth(x, self.patch_size))
        for i in range(self.depth):
            x = ResidualMLP(self.dim, self.expansion, name=f"block_{i}")(x)
        return x


class PatchMLPDecoder(nn.Module):
    """Mirror of the encoder; the first `context` blocks also see the 3 x 3 neighbourhood.

    Context costs the tokens nothing: each one still depends on its own patch only.
    """

    patch_size: int
    dim: int
    depth: int
    num_channels: int
    expansion: int = 2
    context: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b y x d"]) -> Float[Array, "b h w c"]:
        for i in range(self.depth):
            if i < self.context:
                seen = nn.Dense(CONTEXT_DIM, name=f"seen_{i}")(x)
                x = x + nn.Dense(self.dim, name=f"context_{i}")(neighbourhood(seen))
            x = ResidualMLP(self.dim, self.expansion, name=f"block_{i}")(x)
        x = nn.Dense(self.patch_size**2 * self.num_channels, name="patches_out")(x)
        return depth_to_space(x, self.patch_size)


def neighbourhood(x: Float[Array, "b h w d"]) -> Float[Array, "b h w d9"]:
    """Concatenate the 3 x 3 neighbours of every position (zeros outside), row-major."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(parts, axis=-1)


def space_to_depth(x: Float[Array, "b h w c"], patch: int) -> Float[Array, "b y x d"]:
    """Cut into patches, each flattened in (row, column, channel) order."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // patch, patch, width // patch, patch, channels)
    x = jnp.einsum("byixjc->byxijc", x)
    return x.reshape(batch, height // patch, width // patch, patch * patch * channels)


def depth_to_space(x: Float[Array, "b y x d"], patch: int) -> Float[Array, "b h w c"]:
    """Inverse of `space_to_depth`."""
    batch, rows, columns, depth = x.shape
    x = x.reshape(batch, rows, columns, patch, patch, depth // patch**2)
    x = jnp.einsum("byxijc->byixjc", x)
    return x.reshape(batch, rows * patch, columns * patch, depth // patch**2)
