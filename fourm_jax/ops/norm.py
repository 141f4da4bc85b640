"""Layer normalization with a backward pass that keeps two numbers per token and nothing else."""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fourm_jax.utils import hardware

SAVED = "statistics"  # name under which a rematerialization policy may keep mean and 1 / deviation


def layer_norm(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    dtype: DTypeLike,
) -> Float[Array, "*b d"]:
    """Return (x - mean) / sqrt(variance + epsilon) · scale + bias in `dtype`, computed in float32.

    What automatic differentiation derives is the same function. It computes mean and variance again
    and writes a float32 array of the size of x for the gradient of `scale`; an accelerator spends
    more time on that than on the norm itself. One NVIDIA GPU takes the kernels of `ops.fused`.
    """
    return _norm(x, scale, bias, epsilon, dtype, uses_kernels(x))


def fork_norm(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    dtype: DTypeLike,
) -> tuple[Float[Array, "*b d"], Float[Array, "*b d"]]:
    """Return (x, its norm), for a branch that starts with a norm and is added to x.

    The backward pass of the norm then adds the gradient of the x returned to its own, where another
    kernel would read and write both once more.
    """
    return _fork(x, scale, bias, epsilon, dtype, uses_kernels(x))


def uses_kernels(x: Float[Array, "*b d"]) -> bool:
    """Whether this device and the size of `x` suit the kernels of `ops.fused`."""
    if not is_one_gpu():
        return False
    from fourm_jax.ops import fused  # Pallas is slow to import and needs no place on a CPU

    return fused.norm_fits(x.size // x.shape[-1], x.shape[-1])


def is_one_gpu() -> bool:
    """Whether there is one NVIDIA GPU: arrays on several would be put together for a kernel."""
    return hardware.platform() == "gpu" and jax.device_count() == 1


def _forward(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    dtype: DTypeLike,
    kernels: bool,
) -> tuple[Float[Array, "*b d"], tuple[Array, ...]]:
    if kernels:
        from fourm_jax.ops import fused

        rows = x.reshape(-1, x.shape[-1])
        y, mean, inverse = fused.norm_forward(rows, scale, bias, epsilon=epsilon, dtype=dtype)
        mean, inverse = checkpoint_name(mean, SAVED), checkpoint_name(inverse, SAVED)
        return y.reshape(x.shape), (x, scale, mean, inverse)
    wide = x.astype(jnp.float32)
    mean = wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(wide - mean).mean(axis=-1, keepdims=True)
    mean = checkpoint_name(mean, SAVED)
    inverse = checkpoint_name(jax.lax.rsqrt(variance + epsilon), SAVED)
    y = (wide - mean) * (inverse * scale) + bias
    return y.astype(dtype), (x, scale, mean, inverse)


def _gradients(
    saved: tuple[Array, ...],
    d_y: Float[Array, "*b d"],
    d_kept: Float[Array, "*b d"] | None,
    kernels: bool,
) -> tuple[Float[Array, "*b d"], Float[Array, "d"], Float[Array, "d"]]:
    """Gradients with respect to x, to which `d_kept` is added, to scale and to bias."""
    x, scale, mean, inverse = saved
    if kernels:
        from fourm_jax.ops import fused

        arrays = [x, d_y] if d_kept is None else [x, d_y, d_kept]
        x_rows, *gradients = (array.reshape(-1, x.shape[-1]) for array in arrays)
        d_rows, d_scale, d_bias = fused.norm_backward(x_rows, scale, mean, inverse, *gradients)
        return d_rows.reshape(x.shape), d_scale, d_bias
    d_y = d_y.astype(jnp.float32)
    normal = (x.astype(jnp.float32) - mean) * inverse
    tokens = tuple(range(x.ndim - 1))
    d_scale, d_bias = (d_y * normal).sum(tokens), d_y.sum(tokens)
    d_normal = d_y * scale
    along = (d_normal * normal).mean(axis=-1, keepdims=True)
    d_x = inverse * (d_normal - d_normal.mean(axis=-1, keepdims=True) - normal * along)
    d_x = d_x if d_kept is None else d_x + d_kept
    return d_x.astype(x.dtype), d_scale, d_bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _norm(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    dtype: DTypeLike,
    kernels: bool,
) -> Float[Array, "*b d"]:
    return _forward(x, scale, bias, epsilon, dtype, kernels)[0]


def _norm_backward(
    epsilon: float,
    dtype: DTypeLike,
    kernels: bool,
    saved: tuple[Array, ...],
    d_y: Float[Array, "*b d"],
) -> tuple[Float[Array, "*b d"], Float[Array, "d"], Float[Array, "d"]]:
    del epsilon, dtype
    return _gradients(saved, d_y, None, kernels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _fork(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    dtype: DTypeLike,
    kernels: bool,
) -> tuple[Float[Array, "*b d"], Float[Array, "*b d"]]:
    return x, _forward(x, scale, bias, epsilon, dtype, kernels)[0]


def _fork_forward(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    dtype: DTypeLike,
    kernels: bool,
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    y, saved = _forward(x, scale, bias, epsilon, dtype, kernels)
    return (x, y), saved


def _fork_backward(
    epsilon: float,
    dtype: DTypeLike,
    kernels: bool,
    saved: tuple[Array, ...],
    gradients: tuple[Float[Array, "*b d"], Float[Array, "*b d"]],
) -> tuple[Float[Array, "*b d"], Float[Array, "d"], Float[Array, "d"]]:
    del epsilon, dtype
    d_kept, d_y = gradients
    return _gradients(saved, d_y, d_kept, kernels)


_norm.defvjp(_forward, _norm_backward)
_fork.defvjp(_fork_forward, _fork_backward)
