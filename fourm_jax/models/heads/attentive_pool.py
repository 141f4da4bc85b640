"""A learned query that attends to all tokens, then a linear layer (arXiv:2205.01917)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fourm_jax.models.heads.base import Features


class AttentivePool(nn.Module):
    """Multi-head attention of one query per head to the tokens that exist."""

    num_outputs: int
    num_heads: int = 4

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> Float[Array, "b k"]:
        """Logits of pictures."""
        batch, _, dim = features.tokens.shape
        query = self.param("query", nn.initializers.normal(0.02), (1, 1, dim))
        pooled = nn.MultiHeadDotProductAttention(num_heads=self.num_heads, name="attention")(
            jnp.broadcast_to(query, (batch, 1, dim)),
            nn.LayerNorm(name="token_norm")(features.tokens),
            mask=features.valid[:, None, None, :],
        )[:, 0]
        pooled = nn.LayerNorm(name="norm")(pooled)
        return nn.Dense(self.num_outputs, kernel_init=nn.initializers.zeros, name="out")(pooled)


def make(num_outputs: int, image_size: tuple[int, int], num_heads: int = 4) -> AttentivePool:
    """The head for pictures of any size; the width must divide by `num_heads`."""
    return AttentivePool(num_outputs, num_heads)
