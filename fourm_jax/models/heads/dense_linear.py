"""One linear layer per patch, which gives all of its pixels."""

import flax.linen as nn
from jaxtyping import Array, Float

from fourm_jax.models.backbones import mlp
from fourm_jax.models.heads.base import Features


class DenseLinear(nn.Module):
    """Norm and projection of each token to the pixels of its patch."""

    num_outputs: int
    image_size: tuple[int, int]

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> Float[Array, "b h w k"]:
        """Logits or values of pixels.

        Raises:
          ValueError: patches that are not square.
        """
        side = patch_side(self.image_size, features)
        x = nn.LayerNorm(name="norm")(features.grid)
        x = nn.Dense(side * side * self.num_outputs, name="out")(x)
        return mlp.depth_to_space(x, side)


def patch_side(image_size: tuple[int, int], features: Features) -> int:
    """Pixels per token and axis."""
    rows, columns = features.grid.shape[1:3]
    height, width = image_size
    if height % rows or width % columns or height // rows != width // columns:
        raise ValueError(f"labels of {image_size} pixels on a grid of {rows} x {columns} tokens")
    return height // rows


def make(num_outputs: int, image_size: tuple[int, int]) -> DenseLinear:
    """The head for label maps of this size."""
    return DenseLinear(num_outputs, image_size)
