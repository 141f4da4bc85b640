"""Features of several depths as a pyramid, from coarse to fine, then pixels.

Plain backbones give one grid at every depth; each level gets a size of its own, as in ViTDet
(arXiv:2203.16527, section 3) and in the decoders of fine-tuned earth-observation models. Coarse
levels are added to finer ones on the way down (arXiv:1612.03144).
"""

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from fourm_jax.models.backbones import mlp
from fourm_jax.models.heads.base import Features
from fourm_jax.models.heads.dense_linear import patch_side


class DensePyramid(nn.Module):
    """The first depth on a grid twice as fine, the next ones as they are, the last one halved.

    Attributes:
      depths: of the encoder blocks, early to late.
    """

    num_outputs: int
    image_size: tuple[int, int]
    depths: tuple[int, ...]
    dim: int

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> Float[Array, "b h w k"]:
        """Logits or values of pixels.

        Raises:
          ValueError: patches that are not square.
        """
        side = patch_side(self.image_size, features)
        finer = 2 if side % 2 == 0 else 1
        levels = [self._level(level, i, finer) for i, level in enumerate(features.levels)]
        x = levels[-1]
        for number in reversed(range(len(levels) - 1)):
            x = levels[number] + resized(x, levels[number])
            x = nn.gelu(nn.Conv(self.dim, (3, 3), name=f"smooth_{number}")(x))
        side //= finer
        x = nn.Dense(side * side * self.num_outputs, name="out")(nn.LayerNorm(name="out_norm")(x))
        return mlp.depth_to_space(x, side)

    def _level(
        self, level: Float[Array, "b h w d"], number: int, finer: int
    ) -> Float[Array, "b i j c"]:
        """One level at its size and the width of all."""
        x = nn.LayerNorm(name=f"norm_{number}")(level)
        if number == 0:
            x = nn.Dense(finer * finer * self.dim, name=f"in_{number}")(x)
            return mlp.depth_to_space(x, finer)
        x = nn.Dense(self.dim, name=f"in_{number}")(x)
        is_last = number == len(self.depths) - 1
        return nn.max_pool(x, (2, 2), (2, 2)) if is_last and min(x.shape[1:3]) > 1 else x


def resized(x: Float[Array, "b h w c"], like: Float[Array, "b i j c"]) -> Float[Array, "b i j c"]:
    """On the grid of another level, bilinear."""
    return jax.image.resize(x, like.shape, "bilinear")


def make(
    num_outputs: int, image_size: tuple[int, int], depths: tuple[int, ...], dim: int = 64
) -> DensePyramid:
    """The head for label maps of this size, from blocks of these depths (1 is the first).

    Raises:
      ValueError: fewer than two depths, or depths that do not rise.
    """
    depths = tuple(depths)
    if len(depths) < 2 or depths[0] < 1 or list(depths) != sorted(set(depths)):
        raise ValueError(f"head 'dense_pyramid': depths {depths}, expected rising ones, as (1, 3)")
    return DensePyramid(num_outputs, image_size, depths, dim)
