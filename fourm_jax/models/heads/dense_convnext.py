"""Convolutions in the manner of ConvNeXt on the grid of tokens, then pixels.

The head of the published dense transfers (arXiv:2406.09406, section 4.2; MultiMAE,
arXiv:2204.01678, appendix): tokens are spread over a finer grid before the blocks.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from fourm_jax.models.backbones import mlp
from fourm_jax.models.heads.base import Features
from fourm_jax.models.heads.dense_linear import patch_side


class DenseConvNeXt(nn.Module):
    """Projection to a grid twice as fine, depthwise 7 x 7 blocks, projection to pixels."""

    num_outputs: int
    image_size: tuple[int, int]
    dim: int
    depth: int

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> Float[Array, "b h w k"]:
        """Logits or values of pixels.

        Raises:
          ValueError: patches that are not square.
        """
        side = patch_side(self.image_size, features)
        finer = 2 if side % 2 == 0 else 1
        x = nn.LayerNorm(name="norm")(features.grid)
        x = mlp.depth_to_space(nn.Dense(finer * finer * self.dim, name="in")(x), finer)
        for index in range(self.depth):
            x = x + self._block(x, index)
        side //= finer
        x = nn.Dense(side * side * self.num_outputs, name="out")(nn.LayerNorm(name="out_norm")(x))
        return mlp.depth_to_space(x, side)

    def _block(self, x: Float[Array, "b h w c"], index: int) -> Float[Array, "b h w c"]:
        """arXiv:2201.03545, figure 4."""
        y = nn.Conv(self.dim, (7, 7), feature_group_count=self.dim, name=f"conv_{index}")(x)
        y = nn.LayerNorm(name=f"norm_{index}")(y)
        y = nn.gelu(nn.Dense(4 * self.dim, name=f"fc1_{index}")(y))
        return nn.Dense(self.dim, name=f"fc2_{index}")(y)


def make(
    num_outputs: int, image_size: tuple[int, int], dim: int = 64, depth: int = 2
) -> DenseConvNeXt:
    """The head for label maps of this size; published: depth 4, of the width of the encoder."""
    return DenseConvNeXt(num_outputs, image_size, dim, depth)
