"""Attention without the array of logits, as Pallas kernels for NVIDIA GPUs (through Triton).

Visibility comes as a length per sample, or as a few numbers per token, so no [n, m] mask is read,
and a query that sees nothing gets exactly 0. The scheme is that of FlashAttention-2 (Dao 2023,
arXiv:2307.08691): softmax over blocks of keys with a running maximum; the backward pass recomputes
the probabilities from the saved log-sum-exp, once per block of queries (dq) and once per block of
keys (dk, dv). Blocks are small, so that several programs share a multiprocessor and one computes
while another waits for its memory, which is what short sequences need.
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

from fourm_jax.ops import attention

BLOCK = 64  # tokens per block; shorter than that is padded
_NOTHING = -1e30  # logit of what is not seen; finite, so that differences are never nan
_SIZES = 2**16  # orders are less
NO_KEY = -(2**31)  # code of a padded key

# Nothing: all keys are seen; [b]: the first so many; or the lowest and the highest code that each
# query sees [b, n], and the codes of the keys [b, m].
Masks = tuple[Int[Array, "..."], ...]
Ref = Any  # of Pallas: a block of an array in the memory of the device
Indices = Any  # of Pallas: `pl.ds`


def codes(
    query_segment: Int[Array, "b n"],
    key_segment: Int[Array, "b m"],
    query_order: Int[Array, "b n"],
    key_order: Int[Array, "b m"],
) -> Masks:
    """Masks by which query i sees key j iff segments are equal and order_j <= order_i.

    Negative segments of keys are padding. Segments must be less than 2^15, orders from 0 to 2^16.
    """
    lowest = query_segment * _SIZES
    code = jnp.where(key_segment < 0, NO_KEY, key_segment * _SIZES + key_order)
    return lowest, lowest + query_order, code


def flash_attention(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    masks: Masks = (),
    *,
    interpret: bool = False,
) -> Float[Array, "b n h k"]:
    """Return softmax(q kᵀ / sqrt(head_dim)) v; head_dim must be a power of two from 16 on.

    Args:
      masks: (): every query sees every key; ([b],): the first so many; three arrays: see `codes`.
      interpret: run the kernels as ordinary array code, on any device (for tests).
    """
    n, m = q.shape[1], k.shape[1]
    if m == 0:
        return jnp.zeros_like(q)
    if not masks and m % BLOCK:
        masks = (jnp.full(len(q), m),)
    if len(masks) == 3:
        masks = tuple(map(_pad, masks, (0, NO_KEY, NO_KEY)))
    q, k, v = (_pad(x, 0) for x in (q, k, v))
    return _attention(q, k, v, masks, interpret)[:, :n]


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
    masks: Masks,
    interpret: bool,
) -> Float[Array, "b n h k"]:
    return _forward(q, k, v, masks, interpret)[0]


def _forward(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    masks: Masks,
    interpret: bool,
) -> tuple[Float[Array, "b n h k"], tuple[Any, ...]]:
    (b, n, h, head_dim), m = q.shape, k.shape[1]
    vectors, heads = _specs(head_dim)
    out, log_sum = pl.pallas_call(
        functools.partial(_forward_kernel, num_blocks=m // BLOCK),
        grid=(n // BLOCK, b, h),
        in_specs=[vectors(), vectors(m), vectors(m), _mask_specs(masks, (0, 0, m))],
        out_specs=[vectors(), heads()],
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((b, h, n), jnp.float32),
        ],
        name="flash_forward",
        **_options(interpret),
    )(q, k, v, masks)
    out = checkpoint_name(out, attention.SAVED)
    log_sum = checkpoint_name(log_sum, attention.SAVED)
    return out, (q, k, v, masks, out, log_sum)


def _backward(
    interpret: bool, saved: tuple[Any, ...], d_out: Float[Array, "b n h k"]
) -> tuple[Array, Array, Array, None]:
    q, k, v, masks, out, log_sum = saved
    (b, n, h, head_dim), m = q.shape, k.shape[1]
    vectors, heads = _specs(head_dim)
    d_q, inner = pl.pallas_call(
        functools.partial(_query_gradient_kernel, num_blocks=m // BLOCK),
        grid=(n // BLOCK, b, h),
        in_specs=[
            *(vectors(), vectors(m), vectors(m), vectors(), vectors(), heads()),
            _mask_specs(masks, (0, 0, m)),
        ],
        out_specs=[vectors(), heads()],
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((b, h, n), jnp.float32),
        ],
        name="flash_query_gradient",
        **_options(interpret),
    )(q, k, v, out, d_out, log_sum, masks)
    d_k, d_v = pl.pallas_call(
        functools.partial(_key_gradient_kernel, num_blocks=n // BLOCK),
        grid=(m // BLOCK, b, h),
        in_specs=[
            *(vectors(n), vectors(), vectors(), vectors(n), heads(n), heads(n)),
            _mask_specs(masks, (n, n, 0)),
        ],
        out_specs=[vectors(), vectors()],
        out_shape=[jax.ShapeDtypeStruct(k.shape, k.dtype)] * 2,
        name="flash_key_gradient",
        **_options(interpret),
    )(q, k, v, d_out, log_sum, inner, masks)
    return d_q, d_k, d_v, None


_attention.defvjp(_forward, _backward)


def _options(interpret: bool) -> dict[str, Any]:
    # With two stages, products wait for each other: the backward pass takes half as long again.
    params = triton_lib.CompilerParams(num_warps=4, num_stages=3)
    return {"compiler_params": params, "interpret": interpret}


def _specs(head_dim: int):
    """Block specs of [b, t, h, k] and [b, h, t]; of block i, or with `size` of all t."""

    def vectors(size: int = 0) -> pl.BlockSpec:
        shape = (None, size or BLOCK, None, head_dim)
        return pl.BlockSpec(shape, lambda i, b, h: (b, 0 if size else i, h, 0))

    def heads(size: int = 0) -> pl.BlockSpec:
        return pl.BlockSpec((None, None, size or BLOCK), lambda i, b, h: (b, h, 0 if size else i))

    return vectors, heads


def _mask_specs(masks: Masks, sizes: tuple[int, ...]) -> tuple[pl.BlockSpec, ...]:
    """Block specs of masks, those of tokens of block i, or with a size of all tokens."""
    if len(masks) == 1:
        return (pl.BlockSpec((1,), lambda i, b, h: (b,)),)

    def tokens(size: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, size or BLOCK), lambda i, b, h: (b, 0 if size else i))

    return tuple(tokens(size) for _, size in zip(masks, sizes, strict=bool(masks)))


def _scale(head_dim: int) -> float:
    return head_dim**-0.5 * math.log2(math.e)  # logits are in units of log 2


def _hide(
    logits: Float[Array, "n m"],
    masks: tuple[Ref, ...],
    queries: Indices,
    keys: Indices,
    first_key: Int[Array, ""],
    keys_axis: int = 1,
) -> Float[Array, "n m"]:
    """Logits without those that a query does not see; `keys_axis` is 0 where keys come first."""
    if not masks:
        return logits
    if len(masks) == 1:
        index = first_key + jax.lax.broadcasted_iota(jnp.int32, logits.shape, keys_axis)
        return jnp.where(index < masks[0][0], logits, _NOTHING)
    by_query = [jnp.expand_dims(x[queries], keys_axis) for x in masks[:2]]
    code = jnp.expand_dims(masks[2][keys], 1 - keys_axis)
    return jnp.where((code >= by_query[0]) & (code <= by_query[1]), logits, _NOTHING)


_ALL = pl.ds(0, BLOCK)  # of a block that a program has


def _forward_kernel(
    q_ref: Ref,
    k_ref: Ref,
    v_ref: Ref,
    mask_refs: tuple[Ref, ...],
    out_ref: Ref,
    log_sum_ref: Ref,
    *,
    num_blocks: int,
) -> None:
    q = q_ref[...]

    def block(j, carry):
        out, highest, total = carry
        here = pl.ds(j * BLOCK, BLOCK)
        logits = triton_lib.dot(q, k_ref[here, :].T) * _scale(q.shape[-1])
        logits = _hide(logits, mask_refs, _ALL, here, j * BLOCK)
        new_highest = jnp.maximum(highest, logits.max(axis=1))
        probs = jnp.exp2(logits - new_highest[:, None])
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
    # A query that sees nothing has averaged over what is hidden: its output is 0, and so are its
    # probabilities in the backward pass, whose logits are less than any sum by far.
    sees = highest > _NOTHING / 2
    out_ref[...] = (out * jnp.where(sees, 1 / total, 0.0)[:, None]).astype(out_ref.dtype)
    log_sum_ref[...] = jnp.where(sees, highest + jnp.log2(total), -_NOTHING)


def _query_gradient_kernel(
    q_ref: Ref,
    k_ref: Ref,
    v_ref: Ref,
    out_ref: Ref,
    d_out_ref: Ref,
    log_sum_ref: Ref,
    mask_refs: tuple[Ref, ...],
    d_q_ref: Ref,
    inner_ref: Ref,
    *,
    num_blocks: int,
) -> None:
    q, d_out, log_sum = q_ref[...], d_out_ref[...], log_sum_ref[...]
    # sum of d_probs · probs of each query, which the softmax subtracts
    inner = (out_ref[...].astype(jnp.float32) * d_out.astype(jnp.float32)).sum(axis=1)
    inner_ref[...] = inner

    def block(j, d_q):
        here = pl.ds(j * BLOCK, BLOCK)
        k = k_ref[here, :]
        logits = triton_lib.dot(q, k.T) * _scale(q.shape[-1])
        logits = _hide(logits, mask_refs, _ALL, here, j * BLOCK)
        probs = jnp.exp2(logits - log_sum[:, None])
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
    mask_refs: tuple[Ref, ...],
    d_k_ref: Ref,
    d_v_ref: Ref,
    *,
    num_blocks: int,
) -> None:
    k, v = k_ref[...], v_ref[...]
    first_key = pl.program_id(0) * BLOCK

    def block(j, carry):
        d_k, d_v = carry
        here = pl.ds(j * BLOCK, BLOCK)
        q, d_out = q_ref[here, :], d_out_ref[here, :]
        # Keys first: what is multiplied next then lies in registers as its product takes it.
        logits = triton_lib.dot(k, q.T) * _scale(q.shape[-1])
        logits = _hide(logits, mask_refs, here, _ALL, first_key, keys_axis=0)
        probs = jnp.exp2(logits - log_sum_ref[here][None, :])
        d_v += triton_lib.dot(probs.astype(d_out.dtype), d_out)
        d_logits = probs * (triton_lib.dot(v, d_out.T) - inner_ref[here][None, :])
        return d_k + triton_lib.dot(d_logits.astype(q.dtype), q), d_v

    start = (jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32))
    d_k, d_v = jax.lax.fori_loop(0, num_blocks, block, start)
    d_k_ref[...] = (d_k * k.shape[-1] ** -0.5).astype(d_k_ref.dtype)
    d_v_ref[...] = d_v.astype(d_v_ref.dtype)
