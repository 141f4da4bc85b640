"""Attention without the array of logits, as Pallas kernels for NVIDIA GPUs (through Triton).

Visibility comes as segment ids and ranks, a few bytes per token, so no [n, m] mask is read, and a
query that sees nothing gets exactly 0. The scheme is that of FlashAttention-2 (Dao 2023,
arXiv:2307.08691): softmax over blocks of keys with a running maximum; the backward pass recomputes
the probabilities from the saved log-sum-exp, once per block of queries (dq) and once per block of
keys (dk, dv).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as triton_lib
from jaxtyping import Array, Float, Int

BLOCK = 64  # tokens per block; shorter than that is padded
SAVED = "attended"  # name under which a rematerialization policy may keep output and log-sum-exp
_NOTHING = -1e30  # logit of what is not seen; finite, so that differences are never nan
_PADDING = -2  # segment of padded queries and keys


Ranks = tuple[Int[Array, "b n"], Int[Array, "b m"], Int[Array, "b n"], Int[Array, "b m"]]
Ref = Any  # of Pallas: a block of an array in the memory of the device


def flash_attention(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    ranks: Ranks,
    *,
    interpret: bool = False,
) -> Float[Array, "b n h k"]:
    """Return softmax(q kᵀ / sqrt(head_dim)) v; head_dim must be a power of two from 16 on.

    Args:
      ranks: segments of queries and keys, then orders of both: query i sees key j iff their
        segments are equal, that of j is not negative and order_j <= order_i.
      interpret: run the kernels as ordinary array code, on any device (for tests).
    """
    n, m = q.shape[1], k.shape[1]
    q, k, v = (_pad(x, 0) for x in (q, k, v))
    padded = tuple(_pad(x, _PADDING) for x in ranks)
    return _attention(q, k, v, padded, interpret)[:, :n] if m else jnp.zeros_like(q)[:, :n]


def _pad(x: Array, value: int) -> Array:
    rest = -x.shape[1] % BLOCK
    if not rest:
        return x
    widths = ((0, 0), (0, rest)) + ((0, 0),) * (x.ndim - 2)
    return jnp.pad(x, widths, constant_values=value)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attention(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    ranks: Ranks,
    interpret: bool,
) -> Float[Array, "b n h k"]:
    return _forward(q, k, v, ranks, interpret)[0]


def _forward(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    ranks: Ranks,
    interpret: bool,
) -> tuple[Float[Array, "b n h k"], tuple[Any, ...]]:
    (b, n, h, _), m = q.shape, k.shape[1]
    vectors, tokens, heads = _specs(q.shape[-1])
    out, log_sum = pl.pallas_call(
        functools.partial(_forward_kernel, num_blocks=m // BLOCK),
        grid=(n // BLOCK, b, h),
        in_specs=[vectors(), vectors(m), vectors(m), tokens(), tokens(m), tokens(), tokens(m)],
        out_specs=[vectors(), heads()],
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((b, h, n), jnp.float32),
        ],
        compiler_params=triton_lib.CompilerParams(num_warps=4, num_stages=2),
        interpret=interpret,
        name="flash_forward",
    )(q, k, v, *ranks)
    out, log_sum = checkpoint_name(out, SAVED), checkpoint_name(log_sum, SAVED)
    return out, (q, k, v, ranks, out, log_sum)


def _backward(
    interpret: bool, saved: tuple[Any, ...], d_out: Float[Array, "b n h k"]
) -> tuple[Array, Array, Array, None]:
    q, k, v, ranks, out, log_sum = saved
    (b, n, h, _), m = q.shape, k.shape[1]
    # sum of d_probs · probs of each query, which the softmax subtracts
    inner = jnp.einsum("bnhk,bnhk->bhn", out, d_out, preferred_element_type=jnp.float32)
    vectors, tokens, heads = _specs(q.shape[-1])
    common: dict[str, Any] = {
        "compiler_params": triton_lib.CompilerParams(num_warps=4, num_stages=2),
        "interpret": interpret,
    }
    arguments = (q, k, v, d_out, log_sum, inner, *ranks)
    d_q = pl.pallas_call(
        functools.partial(_query_gradient_kernel, num_blocks=m // BLOCK),
        grid=(n // BLOCK, b, h),
        in_specs=[
            *(vectors(), vectors(m), vectors(m), vectors(), heads(), heads()),
            *(tokens(), tokens(m), tokens(), tokens(m)),
        ],
        out_specs=vectors(),
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        name="flash_query_gradient",
        **common,
    )(*arguments)
    d_k, d_v = pl.pallas_call(
        functools.partial(_key_gradient_kernel, num_blocks=n // BLOCK),
        grid=(m // BLOCK, b, h),
        in_specs=[
            *(vectors(n), vectors(), vectors(), vectors(n), heads(n), heads(n)),
            *(tokens(n), tokens(), tokens(n), tokens()),
        ],
        out_specs=[vectors(), vectors()],
        out_shape=[jax.ShapeDtypeStruct(k.shape, k.dtype)] * 2,
        name="flash_key_gradient",
        **common,
    )(*arguments)
    return d_q, d_k, d_v, None


_attention.defvjp(_forward, _backward)


def _specs(head_dim: int):
    """Block specs of [b, t, h, k], [b, t] and [b, h, t]; of block i, or with `size` of all t."""

    def vectors(size: int = 0) -> pl.BlockSpec:
        shape = (None, size or BLOCK, None, head_dim)
        return pl.BlockSpec(shape, lambda i, b, h: (b, 0 if size else i, h, 0))

    def tokens(size: int = 0) -> pl.BlockSpec:
        return pl.BlockSpec((None, size or BLOCK), lambda i, b, h: (b, 0 if size else i))

    def heads(size: int = 0) -> pl.BlockSpec:
        return pl.BlockSpec((None, None, size or BLOCK), lambda i, b, h: (b, h, 0 if size else i))

    return vectors, tokens, heads


def _logits(
    q: Array,
    k: Array,
    query_segment: Array,
    key_segment: Array,
    query_order: Array,
    key_order: Array,
) -> tuple[Array, Array]:
    """Logits in units of log 2, [queries, keys], and which of them are seen."""
    scale = math.log2(math.e) * q.shape[-1] ** -0.5
    seen = (query_segment[:, None] == key_segment[None, :]) & (key_segment >= 0)[None, :]
    seen &= key_order[None, :] <= query_order[:, None]
    logits = triton_lib.dot(q, k.T) * scale
    return jnp.where(seen, logits, _NOTHING), seen


def _forward_kernel(
    q_ref: Ref,
    k_ref: Ref,
    v_ref: Ref,
    qs_ref: Ref,
    ks_ref: Ref,
    qo_ref: Ref,
    ko_ref: Ref,
    out_ref: Ref,
    log_sum_ref: Ref,
    *,
    num_blocks: int,
) -> None:
    q, q_segment, q_order = q_ref[...], qs_ref[...], qo_ref[...]

    def block(j, carry):
        out, highest, total = carry
        here = pl.ds(j * BLOCK, BLOCK)
        logits, seen = _logits(q, k_ref[here, :], q_segment, ks_ref[here], q_order, ko_ref[here])
        new_highest = jnp.maximum(highest, logits.max(axis=1))
        probs = jnp.where(seen, jnp.exp2(logits - new_highest[:, None]), 0.0)
        rescale = jnp.exp2(highest - new_highest)
        v = v_ref[here, :]
        out = out * rescale[:, None] + triton_lib.dot(probs.astype(v.dtype), v)
        return out, new_highest, total * rescale + probs.sum(axis=1)

    start = (
        jnp.zeros(q.shape, jnp.float32),
        jnp.full(q.shape[0], _NOTHING, jnp.float32),
        jnp.zeros(q.shape[0], jnp.float32),
    )
    out, highest, total = jax.lax.fori_loop(0, num_blocks, block, start)
    total = jnp.where(total > 0, total, 1.0)  # a query that sees nothing: out is 0
    out_ref[...] = (out / total[:, None]).astype(out_ref.dtype)
    log_sum_ref[...] = highest + jnp.log2(total)


def _query_gradient_kernel(
    q_ref: Ref,
    k_ref: Ref,
    v_ref: Ref,
    d_out_ref: Ref,
    log_sum_ref: Ref,
    inner_ref: Ref,
    qs_ref: Ref,
    ks_ref: Ref,
    qo_ref: Ref,
    ko_ref: Ref,
    d_q_ref: Ref,
    *,
    num_blocks: int,
) -> None:
    q, q_segment, q_order = q_ref[...], qs_ref[...], qo_ref[...]
    d_out, log_sum, inner = d_out_ref[...], log_sum_ref[...], inner_ref[...]

    def block(j, d_q):
        here = pl.ds(j * BLOCK, BLOCK)
        k = k_ref[here, :]
        logits, seen = _logits(q, k, q_segment, ks_ref[here], q_order, ko_ref[here])
        probs = jnp.where(seen, jnp.exp2(logits - log_sum[:, None]), 0.0)
        d_logits = probs * (triton_lib.dot(d_out, v_ref[here, :].T) - inner[:, None])
        return d_q + triton_lib.dot(d_logits.astype(k.dtype), k)

    d_q = jax.lax.fori_loop(0, num_blocks, block, jnp.zeros(q.shape, jnp.float32))
    d_q_ref[...] = (d_q * q.shape[-1] ** -0.5).astype(d_q_ref.dtype)


def _key_gradient_kernel(
    q_ref: Ref,
    k_ref: Ref,
    v_ref: Ref,
    d_out_ref: Ref,
    log_sum_ref: Ref,
    inner_ref: Ref,
    qs_ref: Ref,
    ks_ref: Ref,
    qo_ref: Ref,
    ko_ref: Ref,
    d_k_ref: Ref,
    d_v_ref: Ref,
    *,
    num_blocks: int,
) -> None:
    k, v, k_segment, k_order = k_ref[...], v_ref[...], ks_ref[...], ko_ref[...]

    def block(j, carry):
        d_k, d_v = carry
        here = pl.ds(j * BLOCK, BLOCK)
        q, d_out = q_ref[here, :], d_out_ref[here, :]
        logits, seen = _logits(q, k, qs_ref[here], k_segment, qo_ref[here], k_order)
        probs = jnp.where(seen, jnp.exp2(logits - log_sum_ref[here][:, None]), 0.0)
        d_v += triton_lib.dot(probs.astype(d_out.dtype).T, d_out)
        d_logits = probs * (triton_lib.dot(d_out, v.T) - inner_ref[here][:, None])
        return d_k + triton_lib.dot(d_logits.astype(q.dtype).T, q), d_v

    start = (jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32))
    d_k, d_v = jax.lax.fori_loop(0, num_blocks, block, start)
    d_k_ref[...] = (d_k * k.shape[-1] ** -0.5).astype(d_k_ref.dtype)
    d_v_ref[...] = d_v.astype(d_v_ref.dtype)
