"""One linear layer on the average of all tokens."""

import flax.linen as nn
from jaxtyping import Array, Float

from fourm_jax.models.heads.base import Features


class Linear(nn.Module):
    """Average, norm, projection; starts at zero, so that the first answers are all alike."""

    num_outputs: int

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> Float[Array, "b k"]:
        """Logits of pictures."""
        pooled = nn.LayerNorm(name="norm")(features.mean())
        return nn.Dense(self.num_outputs, kernel_init=nn.initializers.zeros, name="out")(pooled)


def make(num_outputs: int, image_size: tuple[int, int]) -> Linear:
    """The head for pictures of any size."""
    return Linear(num_outputs)
