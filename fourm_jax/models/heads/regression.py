"""Numbers of a picture: a small MLP on the average of all tokens."""

import flax.linen as nn
from jaxtyping import Array, Float

from fourm_jax.models.heads.base import Features


class Regression(nn.Module):
    """Average, norm, one hidden layer of the same width."""

    num_outputs: int

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> Float[Array, "b k"]:
        """Values of pictures, in standard deviations from their mean."""
        x = nn.LayerNorm(name="norm")(features.mean())
        x = nn.gelu(nn.Dense(x.shape[-1], name="hidden")(x))
        return nn.Dense(self.num_outputs, kernel_init=nn.initializers.zeros, name="out")(x)


def make(num_outputs: int, image_size: tuple[int, int]) -> Regression:
    """The head for pictures of any size."""
    return Regression(num_outputs)
