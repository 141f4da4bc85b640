"""The one attention entry: who sees whom is said with segments and orders, not with masks."""

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


@flax.struct.dataclass
class Visibility:
    """Query i sees key j iff their segments are equal, j is not padding and order_j <= order_i.

    Attributes:
      query_segment: [b, n].
      key_segment: [b, m]; negative = padding, seen by nobody.
      query_order, key_order: [b, n] and [b, m], or both None: order does not matter.
    """

    query_segment: Int[Array, "b n"]
    key_segment: Int[Array, "b m"]
    query_order: Int[Array, "b n"] | None = None
    key_order: Int[Array, "b m"] | None = None

    def mask(self) -> Bool[Array, "b 1 n m"]:
        """Dense form, True = query i sees key j; the axis of heads has size 1."""
        same = self.query_segment[:, None, :, None] == self.key_segment[:, None, None, :]
        seen = same & (self.key_segment >= 0)[:, None, None, :]
        if self.key_order is not None:
            seen &= self.key_order[:, None, None, :] <= self.query_order[:, None, :, None]
        return seen


def sees_valid(valid: Bool[Array, "b m"], num_queries: int) -> Visibility:
    """Every query sees every valid key."""
    queries = jnp.zeros((valid.shape[0], num_queries), jnp.int32)
    return Visibility(queries, jnp.where(valid, 0, -1))


def attend(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    mask: Visibility | None = None,
) -> Float[Array, "b n h k"]:
    """Return softmax(q kᵀ / sqrt(head_dim)) v in the dtype of `v`; logits and softmax in float32.

    Args:
      q, k, v: projected queries, keys and values; m may be 0.
      mask: who sees whom; None = everybody sees everybody.

    A query that sees nothing gets exactly 0 (the published code averages over all keys there,
    which only padding meets, or attends over an empty axis, which gives 0 as here).
    """
    # Heads first: with them inside, XLA's CPU backend takes three times as long for the products.
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    logits = jnp.einsum("bhnk,bhmk->bhnm", q, k, preferred_element_type=jnp.float32)
    logits *= q.shape[-1] ** -0.5
    if mask is None:
        probs = jax.nn.softmax(logits, axis=-1)
    else:
        seen = mask.mask()
        probs = jax.nn.softmax(jnp.where(seen, logits, jnp.finfo(jnp.float32).min), axis=-1)
        probs = jnp.where(seen, probs, 0.0)
    return jnp.swapaxes(jnp.einsum("bhnm,bhmk->bhnk", probs.astype(v.dtype), v), 1, 2)
