"""Attention whose logits stay in vector memory, as Pallas kernels for TPUs.

XLA writes the logits of all heads to memory, and for the gradients reads them, or what it made of
them, several times. Sequences of a few hundred tokens need no blocks: a program holds all queries
and keys of some heads of one sample, and the logits of one head after the other. The backward pass
computes the probabilities anew from queries and keys. Visibility comes as in `ops.flash`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float

from fourm_jax.ops import flash
from fourm_jax.ops.flash import Masks

LANES = 128  # of a tile
MOST_LANES = 512  # channels of the heads that a program holds
_NOTHING = -1e30  # added to the logit of what is not seen; finite, so that differences are

Ref = Any  # of Pallas: a block of an array in the memory of the device


def heads_at_once(num_heads: int, head_dim: int) -> int:
    """Heads that a program holds: whole tiles of channels, or all heads; 0: none would do."""
    for count in range(num_heads, 0, -1):
        channels = count * head_dim
        is_whole = channels % LANES == 0 or count == num_heads
        if num_heads % count == 0 and is_whole and channels <= MOST_LANES:
            return count
    return 0


def attention(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    masks: Masks = (),
    *,
    interpret: bool = False,
) -> Float[Array, "b n h k"]:
    """Return softmax(q kᵀ / sqrt(head_dim)) v; a query that sees nothing gets exactly 0.

    Args:
      masks: (): every query sees every key; ([b],): the first so many; three arrays: see
        `flash.codes`.
      interpret: run the kernels as ordinary array code, on any device (for tests).
    """
    lowest, highest, code = _as_codes(masks, len(q), q.shape[1], k.shape[1])
    return _attention(q, k, v, (lowest[:, :, None], highest[:, :, None], code[:, None]), interpret)


def _as_codes(masks: Masks, num_samples: int, num_queries: int, num_keys: int) -> Masks:
    """Masks of any form as three arrays, see `flash.codes`."""
    if len(masks) == 3:
        return masks
    zero, code = (jnp.zeros((num_samples, size), jnp.int32) for size in (num_queries, num_keys))
    if masks:
        code = jnp.where(jnp.arange(num_keys) < masks[0][:, None], 0, flash.NO_KEY)
    return zero, zero, code


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attention(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    codes: Masks,
    interpret: bool,
) -> Float[Array, "b n h k"]:
    (out,) = _call(_forward_kernel, codes, (q, k, v), (q,), interpret)
    return out


def _forward(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    codes: Masks,
    interpret: bool,
) -> tuple[Float[Array, "b n h k"], tuple[Any, ...]]:
    return _attention(q, k, v, codes, interpret), (q, k, v, codes)


def _backward(
    interpret: bool, saved: tuple[Any, ...], d_out: Float[Array, "b n h k"]
) -> tuple[Array, Array, Array, None]:
    q, k, v, codes = saved
    d_q, d_k, d_v = _call(_backward_kernel, codes, (q, k, v, d_out), (q, k, v), interpret)
    return d_q, d_k, d_v, None


_attention.defvjp(_forward, _backward)


def _call(
    kernel: Any,
    codes: Masks,
    arrays: tuple[Array, ...],
    like: tuple[Array, ...],
    interpret: bool,
) -> tuple[Array, ...]:
    """Run a kernel on some heads of one sample after the other; results as those in `like`."""
    num_samples, _, num_heads, head_dim = arrays[0].shape
    at_once = heads_at_once(num_heads, head_dim)

    def of_heads(size: int) -> pl.BlockSpec:
        return pl.BlockSpec((1, size, at_once * head_dim), lambda i, j: (i, 0, j))

    def of_sample(shape: tuple[int, ...]) -> pl.BlockSpec:
        return pl.BlockSpec((1, *shape[1:]), lambda i, j: (i, 0, 0))

    flat = [x.reshape(*x.shape[:2], -1) for x in arrays]
    made = pl.pallas_call(
        functools.partial(kernel, num_heads=at_once),
        grid=(num_samples, num_heads // at_once),
        in_specs=[of_sample(x.shape) for x in codes] + [of_heads(x.shape[1]) for x in flat],
        out_specs=[of_heads(x.shape[1]) for x in like],
        out_shape=[
            jax.ShapeDtypeStruct((*x.shape[:2], num_heads * head_dim), x.dtype) for x in like
        ],
        interpret=interpret,
        name="flash_tpu" + kernel.__name__.removesuffix("_kernel"),
    )(*codes, *flat)
    return tuple(x.reshape(old.shape) for x, old in zip(made, like, strict=True))


def _forward_kernel(*refs: Ref, num_heads: int) -> None:
    *codes, q_ref, k_ref, v_ref, out_ref = refs
    seen = _seen(*codes)
    for head in range(num_heads):
        here = _channels(q_ref, head, num_heads)
        v = v_ref[0, :, here]
        weights, total = _weights(q_ref[0, :, here], k_ref[0, :, here], seen)
        out = _product(weights.astype(v.dtype), v, (1, 0))
        out_ref[0, :, here] = (out * _inverse(total)).astype(out_ref.dtype)


def _backward_kernel(*refs: Ref, num_heads: int) -> None:
    *codes, q_ref, k_ref, v_ref, d_out_ref, d_q_ref, d_k_ref, d_v_ref = refs
    seen = _seen(*codes)
    for head in range(num_heads):
        here = _channels(q_ref, head, num_heads)
        q, k, v, d_out = (ref[0, :, here] for ref in (q_ref, k_ref, v_ref, d_out_ref))
        weights, total = _weights(q, k, seen)
        probs = weights * _inverse(total)
        d_probs = _product(d_out, v, (1, 1))
        inner = (probs * d_probs).sum(axis=1, keepdims=True)
        d_logits = (probs * (d_probs - inner) * _scale(q)).astype(q.dtype)
        d_q_ref[0, :, here] = _product(d_logits, k, (1, 0)).astype(d_q_ref.dtype)
        d_k_ref[0, :, here] = _product(d_logits, q, (0, 0)).astype(d_k_ref.dtype)
        d_v_ref[0, :, here] = _product(probs.astype(v.dtype), d_out, (0, 0)).astype(d_v_ref.dtype)


def _seen(lowest_ref: Ref, highest_ref: Ref, code_ref: Ref) -> Bool[Array, "n m"]:
    return (code_ref[0] >= lowest_ref[0]) & (code_ref[0] <= highest_ref[0])


def _channels(ref: Ref, head: int, num_heads: int) -> slice:
    size = ref.shape[2] // num_heads
    return slice(head * size, (head + 1) * size)


def _weights(
    q: Float[Array, "n k"], k: Float[Array, "m k"], seen: Bool[Array, "n m"]
) -> tuple[Float[Array, "n m"], Float[Array, "n 1"]]:
    """exp(logits - their maximum), 0 for what is not seen, and the sums over keys; float32."""
    logits = jnp.where(seen, _product(q, k, (1, 1)) * _scale(q), _NOTHING)
    largest = logits.max(axis=1, keepdims=True)
    # of a query that sees nothing all differences would be 0
    weights = jnp.exp(logits - jnp.maximum(largest, _NOTHING / 2))
    return weights, weights.sum(axis=1, keepdims=True)


def _inverse(total: Float[Array, "n 1"]) -> Float[Array, "n 1"]:
    return jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1.0), 0.0)


def _scale(q: Float[Array, "n k"]) -> float:
    return float(q.shape[1] ** -0.5)


def _product(a: Array, b: Array, axes: tuple[int, int]) -> Float[Array, "_ _"]:
    """Sums over one axis of each, in float32."""
    contracted = ((axes[0],), (axes[1],))
    made: Array = jax.lax.dot_general(
        a, b, (contracted, ((), ())), preferred_element_type=jnp.float32
    )
    return made
