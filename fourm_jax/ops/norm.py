"""Layer normalization with a backward pass that keeps two numbers per token and nothing else."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fourm_jax.ops import each_device
from fourm_jax.utils import hardware

SAVED = "statistics"  # name under which a rematerialization policy may keep mean and 1 / deviation
_HEADS_NDIM = 4  # of queries and keys


def layer_norm(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    dtype: DTypeLike,
    uses: int = 1,
) -> tuple[Float[Array, "*b d"], ...]:
    """Return (x - mean) / sqrt(variance + epsilon) · scale + bias in `dtype`, once for every use.

    Computed in float32. What automatic differentiation derives is the same function. It computes
    mean and variance again and writes a float32 array of the size of x for the gradient of `scale`;
    an accelerator spends more time on that than on the norm itself. Where a gradient is asked for,
    NVIDIA GPUs take the kernels of `ops.fused`, each for its own samples (the first axis of x) and
    heads (the third of four).

    Args:
      uses: how many products take the result. Each gets one of the equal arrays returned, so that
        the backward pass reads their gradients where it needs the sum, in float32; else a kernel
        of its own would read them and write their sum.
    """
    return _norm(x, scale, bias, epsilon, dtype, uses_kernels(x), uses)


def fork_norm(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    dtype: DTypeLike,
    uses: int = 1,
) -> tuple[Float[Array, "*b d"], tuple[Float[Array, "*b d"], ...]]:
    """Return (x, its norm once for every use), for a branch that is added to x.

    The backward pass of the norm then adds the gradient of the x returned to its own, where another
    kernel would read and write both once more.
    """
    return _fork(x, scale, bias, epsilon, dtype, uses_kernels(x), uses)


def uses_kernels(x: Float[Array, "*b d"]) -> bool:
    """Whether the devices and what each has of `x` suit the kernels of `ops.fused`."""
    num_parts = 0
    if hardware.platform() == "gpu":
        num_parts = each_device.num_parts(len(x))
        if x.ndim == _HEADS_NDIM:
            num_parts *= each_device.num_parts(x.shape[2], each_device.CHANNELS)
    if not num_parts:
        return False
    from fourm_jax.ops import fused  # Pallas is slow to import and needs no place on a CPU

    return fused.norm_fits(x.size // x.shape[-1] // num_parts, x.shape[-1])


def _specs(x: Float[Array, "*b d"]) -> tuple[P, P]:
    """How x lies on a mesh, by samples and heads [b, n, h, d], and one number for each row of it.

    The rows of one device follow each other in the latter.
    """
    if x.ndim < _HEADS_NDIM:
        return P(each_device.SAMPLES), P(each_device.SAMPLES)
    vectors = P(each_device.SAMPLES, None, each_device.CHANNELS)
    return vectors, P(each_device.SAMPLES + each_device.CHANNELS)


def _forward(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    dtype: DTypeLike,
    kernels: bool,
) -> tuple[Float[Array, "*b d"], tuple[Array, ...]]:
    if kernels:
        y, mean, inverse = _fused_forward(x, scale, bias, epsilon, dtype)
        mean, inverse = checkpoint_name(mean, SAVED), checkpoint_name(inverse, SAVED)
        return y, (x, scale, mean, inverse)
    wide = x.astype(jnp.float32)
    mean = wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(wide - mean).mean(axis=-1, keepdims=True)
    mean = checkpoint_name(mean, SAVED)
    inverse = checkpoint_name(jax.lax.rsqrt(variance + epsilon), SAVED)
    y = (wide - mean) * (inverse * scale) + bias
    return y.astype(dtype), (x, scale, mean, inverse)


def _gradients(
    saved: tuple[Array, ...],
    d_ys: Sequence[Float[Array, "*b d"]],
    d_kept: Float[Array, "*b d"] | None,
    kernels: bool,
) -> tuple[Float[Array, "*b d"], Float[Array, "d"], Float[Array, "d"]]:
    """Gradients with respect to x, to which `d_kept` is added, to scale and to bias.

    `d_ys` are those of the uses, which are added up.
    """
    if kernels:
        return _fused_gradients(saved, d_ys, d_kept)
    x, scale, mean, inverse = saved
    d_y = functools.reduce(jnp.add, [one.astype(jnp.float32) for one in d_ys])
    normal = (x.astype(jnp.float32) - mean) * inverse
    tokens = tuple(range(x.ndim - 1))
    d_scale, d_bias = (d_y * normal).sum(tokens), d_y.sum(tokens)
    d_normal = d_y * scale
    along = (d_normal * normal).mean(axis=-1, keepdims=True)
    d_x = inverse * (d_normal - d_normal.mean(axis=-1, keepdims=True) - normal * along)
    d_x = d_x if d_kept is None else d_x + d_kept
    return d_x.astype(x.dtype), d_scale, d_bias


def _fused_forward(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    dtype: DTypeLike,
) -> tuple[Float[Array, "*b d"], Float[Array, "t"], Float[Array, "t"]]:
    """Norms, means and 1 / deviations, of every device its own."""
    from fourm_jax.ops import fused

    def on_device(x: Array, scale: Array, bias: Array) -> tuple[Array, Array, Array]:
        rows = x.reshape(-1, x.shape[-1])
        y, mean, inverse = fused.norm_forward(rows, scale, bias, epsilon=epsilon, dtype=dtype)
        return y.reshape(x.shape), mean, inverse

    own, numbers = _specs(x)
    whole = each_device.WHOLE
    norms: tuple[Array, Array, Array] = each_device.run(
        on_device, in_specs=(own, whole, whole), out_specs=(own, numbers, numbers)
    )(x, scale, bias)
    return norms


def _fused_gradients(
    saved: tuple[Array, ...],
    d_ys: Sequence[Float[Array, "*b d"]],
    d_kept: Float[Array, "*b d"] | None,
) -> tuple[Float[Array, "*b d"], Float[Array, "d"], Float[Array, "d"]]:
    """As `_gradients`; those of scale and bias are summed over the devices last."""
    from fourm_jax.ops import fused

    def on_device(saved, gradients):
        x, scale, mean, inverse = saved
        x_rows, *rows = (g.reshape(-1, x.shape[-1]) for g in (x, *gradients))
        d_rows, kept_rows = rows[: len(d_ys)], rows[len(d_ys) :]
        d_x, d_scale, d_bias = fused.norm_backward(x_rows, scale, mean, inverse, d_rows, *kept_rows)
        return d_x.reshape(x.shape), d_scale[None], d_bias[None]

    own, numbers = _specs(saved[0])
    gradients = (*d_ys,) if d_kept is None else (*d_ys, d_kept)
    d_x, d_scales, d_biases = each_device.run(
        on_device,
        in_specs=((own, each_device.WHOLE, numbers, numbers), own),
        out_specs=(own, numbers, numbers),
    )(saved, gradients)
    return d_x, d_scales.sum(0), d_biases.sum(0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def _norm(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    dtype: DTypeLike,
    kernels: bool,
    uses: int,
) -> tuple[Float[Array, "*b d"], ...]:
    del kernels  # Without a gradient XLA's norm is one kernel too, which adds up what it reads.
    return (_forward(x, scale, bias, epsilon, dtype, False)[0],) * uses


def _norm_forward(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    dtype: DTypeLike,
    kernels: bool,
    uses: int,
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    y, saved = _forward(x, scale, bias, epsilon, dtype, kernels)
    return (y,) * uses, saved


def _norm_backward(
    epsilon: float,
    dtype: DTypeLike,
    kernels: bool,
    uses: int,
    saved: tuple[Array, ...],
    d_ys: tuple[Float[Array, "*b d"], ...],
) -> tuple[Float[Array, "*b d"], Float[Array, "d"], Float[Array, "d"]]:
    del epsilon, dtype, uses
    return _gradients(saved, d_ys, None, kernels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def _fork(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    dtype: DTypeLike,
    kernels: bool,
    uses: int,
) -> tuple[Float[Array, "*b d"], tuple[Float[Array, "*b d"], ...]]:
    del kernels  # as in `_norm`
    return x, (_forward(x, scale, bias, epsilon, dtype, False)[0],) * uses


def _fork_forward(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    dtype: DTypeLike,
    kernels: bool,
    uses: int,
) -> tuple[tuple[Array, tuple[Array, ...]], tuple[Array, ...]]:
    if kernels:  # else XLA adds up again, for what reads the x returned, what x is the sum of
        x = jax.lax.optimization_barrier(x)
    y, saved = _forward(x, scale, bias, epsilon, dtype, kernels)
    return (x, (y,) * uses), saved


def _fork_backward(
    epsilon: float,
    dtype: DTypeLike,
    kernels: bool,
    uses: int,
    saved: tuple[Array, ...],
    gradients: tuple[Float[Array, "*b d"], tuple[Float[Array, "*b d"], ...]],
) -> tuple[Float[Array, "*b d"], Float[Array, "d"], Float[Array, "d"]]:
    del epsilon, dtype, uses
    d_kept, d_ys = gradients
    return _gradients(saved, d_ys, d_kept, kernels)


_norm.defvjp(_norm_forward, _norm_backward)
_fork.defvjp(_fork_forward, _fork_backward)
