"""Norms and gates whose passes read and write each array once, as Pallas kernels for NVIDIA GPUs.

XLA computes a norm in three kernels forward and two backward, and the two gradients of a gate in
one kernel each; every one of them reads the same activations again. These are limited by the
memory alone. Kernels are lowered through Triton, whose blocks have sizes that are powers of two:
rows are cut into such pieces (768 = 512 + 256).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as triton_lib
from jaxtyping import Array, Float

BLOCK = 4096  # numbers of an array that a program holds at once
MOST_PROGRAMS, FEWEST_PROGRAMS = 512, 32  # that share the rows of a backward pass
SMALLEST_PIECE, MOST_PIECES = 64, 3  # of a row
GATES = (jax.nn.silu, jax.nn.relu)  # Triton has no complementary error function, as GELU needs

Ref = Any  # of Pallas: a block of an array in the memory of the device


def pieces(dim: int) -> tuple[slice, ...]:
    """Cut a row into pieces whose sizes are powers of two, the largest first; () = it cannot be.

    >>> pieces(768)
    (slice(0, 512, None), slice(512, 768, None))
    """
    found: list[slice] = []
    start = 0
    while start < dim:
        size = 2 ** ((dim - start).bit_length() - 1)
        found.append(slice(start, start + size))
        start += size
    fits = len(found) <= MOST_PIECES and found[-1].stop - found[-1].start >= SMALLEST_PIECE
    return tuple(found) if fits and dim <= BLOCK else ()


def norm_fits(num_rows: int, dim: int) -> bool:
    """Whether the kernels of the norm take [num_rows, dim]."""
    return bool(pieces(dim)) and _num_programs(num_rows, dim) >= FEWEST_PROGRAMS


def gate_fits(size: int, activation: Callable[[Array], Array]) -> bool:
    """Whether the kernel of the gate takes arrays of `size` numbers and this activation."""
    return size % BLOCK == 0 and activation in GATES


def _rows_at_once(dim: int) -> int:
    return max(BLOCK // 2 ** (dim - 1).bit_length(), 1)


def _num_programs(num_rows: int, dim: int) -> int:
    """How many programs share the rows evenly; 0 = none."""
    blocks, rest = divmod(num_rows, _rows_at_once(dim))
    return 0 if rest else min(blocks & -blocks, MOST_PROGRAMS)


def norm_forward(
    x: Float[Array, "t d"],
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    *,
    epsilon: float,
    dtype: Any,
    interpret: bool = False,
) -> tuple[Float[Array, "t d"], Float[Array, "t"], Float[Array, "t"]]:
    """Return the norm of every row, its mean and 1 / its deviation."""
    (num_rows, dim), rows = x.shape, _rows_at_once(x.shape[1])
    vectors, numbers = _specs(rows, dim)
    return pl.pallas_call(
        functools.partial(_norm_forward_kernel, epsilon=epsilon),
        grid=(num_rows // rows,),
        in_specs=[vectors, _whole(dim), _whole(dim)],
        out_specs=[vectors, numbers, numbers],
        out_shape=[
            jax.ShapeDtypeStruct(x.shape, dtype),
            jax.ShapeDtypeStruct((num_rows,), jnp.float32),
            jax.ShapeDtypeStruct((num_rows,), jnp.float32),
        ],
        compiler_params=triton_lib.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="norm_forward",
    )(x, scale, bias)


def norm_backward(
    x: Float[Array, "t d"],
    scale: Float[Array, "d"],
    mean: Float[Array, "t"],
    inverse: Float[Array, "t"],
    d_ys: Sequence[Float[Array, "t d"]],
    d_kept: Float[Array, "t d"] | None = None,
    *,
    interpret: bool = False,
) -> tuple[Float[Array, "t d"], Float[Array, "d"], Float[Array, "d"]]:
    """Gradients with respect to x, scale and bias from the sum of `d_ys`.

    `d_kept` is added to the first.
    """
    (num_rows, dim), rows = x.shape, _rows_at_once(x.shape[1])
    num_programs = _num_programs(num_rows, dim)
    vectors, numbers = _specs(num_rows // num_programs, dim)
    sums = pl.BlockSpec((None, dim), lambda i: (i, 0))
    gradients = [*d_ys] if d_kept is None else [*d_ys, d_kept]
    d_x, d_scale, d_bias = pl.pallas_call(
        functools.partial(_norm_backward_kernel, rows=rows, uses=len(d_ys)),
        grid=(num_programs,),
        in_specs=[vectors, _whole(dim), numbers, numbers] + [vectors] * len(gradients),
        out_specs=[vectors, sums, sums],
        out_shape=[
            jax.ShapeDtypeStruct(x.shape, x.dtype),
            jax.ShapeDtypeStruct((num_programs, dim), jnp.float32),
            jax.ShapeDtypeStruct((num_programs, dim), jnp.float32),
        ],
        compiler_params=triton_lib.CompilerParams(num_warps=8, num_stages=2),
        interpret=interpret,
        name="norm_backward",
    )(x, scale, mean, inverse, *gradients)
    return d_x, d_scale.sum(0), d_bias.sum(0)


def gate_backward(
    a: Float[Array, "*n"],
    b: Float[Array, "*n"],
    d_y: Float[Array, "*n"],
    activation: Callable[[Array], Array],
    *,
    interpret: bool = False,
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Gradients of activation(a) · b with respect to a and b."""
    block = pl.BlockSpec((BLOCK,), lambda i: (i,))
    d_a, d_b = pl.pallas_call(
        functools.partial(_gate_backward_kernel, activation=activation),
        grid=(a.size // BLOCK,),
        in_specs=[block] * 3,
        out_specs=[block] * 2,
        out_shape=[jax.ShapeDtypeStruct((a.size,), x.dtype) for x in (a, b)],
        compiler_params=triton_lib.CompilerParams(num_warps=8, num_stages=1),
        interpret=interpret,
        name="gate_backward",
    )(a.ravel(), b.ravel(), d_y.ravel())
    return d_a.reshape(a.shape), d_b.reshape(b.shape)


def _specs(rows: int, dim: int) -> tuple[pl.BlockSpec, pl.BlockSpec]:
    """Block i of `rows` rows: of [t, d] and of [t]."""
    return pl.BlockSpec((rows, dim), lambda i: (i, 0)), pl.BlockSpec((rows,), lambda i: (i,))


def _whole(dim: int) -> pl.BlockSpec:
    return pl.BlockSpec((dim,), lambda i: (0,))


def _norm_forward_kernel(
    x_ref: Ref,
    scale_ref: Ref,
    bias_ref: Ref,
    y_ref: Ref,
    mean_ref: Ref,
    inverse_ref: Ref,
    *,
    epsilon: float,
) -> None:
    dim = x_ref.shape[1]
    parts = pieces(dim)
    xs = [x_ref[:, part].astype(jnp.float32) for part in parts]
    mean = _row_sums(xs) / dim
    xs = [x - mean[:, None] for x in xs]
    inverse = jax.lax.rsqrt(_row_sums([x * x for x in xs]) / dim + epsilon)
    mean_ref[...], inverse_ref[...] = mean, inverse
    for part, x in zip(parts, xs, strict=True):
        y = x * (inverse[:, None] * scale_ref[part][None, :]) + bias_ref[part][None, :]
        y_ref[:, part] = y.astype(y_ref.dtype)


def _norm_backward_kernel(
    x_ref: Ref,
    scale_ref: Ref,
    mean_ref: Ref,
    inverse_ref: Ref,
    *refs: Ref,
    rows: int,
    uses: int,
) -> None:
    *gradient_refs, d_x_ref, d_scale_ref, d_bias_ref = refs
    d_y_refs, d_kept_refs = gradient_refs[:uses], gradient_refs[uses:]
    num_rows, dim = x_ref.shape
    parts = pieces(dim)
    scales = [scale_ref[part][None, :] for part in parts]

    def block(j, sums):
        here = pl.ds(j * rows, rows)
        mean, inverse = mean_ref[here][:, None], inverse_ref[here][:, None]
        normals = [(x_ref[here, part].astype(jnp.float32) - mean) * inverse for part in parts]
        d_ys = [_sum([ref[here, part].astype(jnp.float32) for ref in d_y_refs]) for part in parts]
        d_normals = [d_y * scale for d_y, scale in zip(d_ys, scales, strict=True)]
        average = _row_sums(d_normals)[:, None] / dim
        along = _row_sums([d * n for d, n in zip(d_normals, normals, strict=True)])[:, None] / dim
        for part, normal, d_normal in zip(parts, normals, d_normals, strict=True):
            d_x = inverse * (d_normal - average - normal * along)
            for d_kept_ref in d_kept_refs:
                d_x += d_kept_ref[here, part].astype(jnp.float32)
            d_x_ref[here, part] = d_x.astype(d_x_ref.dtype)
        d_scales, d_biases = sums
        return (
            [s + d_y * normal for s, d_y, normal in zip(d_scales, d_ys, normals, strict=True)],
            [s + d_y for s, d_y in zip(d_biases, d_ys, strict=True)],
        )

    zeros = [jnp.zeros((rows, part.stop - part.start), jnp.float32) for part in parts]
    d_scales, d_biases = jax.lax.fori_loop(0, num_rows // rows, block, (zeros, zeros))
    for part, d_scale, d_bias in zip(parts, d_scales, d_biases, strict=True):
        d_scale_ref[part], d_bias_ref[part] = d_scale.sum(axis=0), d_bias.sum(axis=0)


def _gate_backward_kernel(
    a_ref: Ref,
    b_ref: Ref,
    d_y_ref: Ref,
    d_a_ref: Ref,
    d_b_ref: Ref,
    *,
    activation: Callable[[Array], Array],
) -> None:
    a, b, d_y = (ref[...].astype(jnp.float32) for ref in (a_ref, b_ref, d_y_ref))
    active, pull = jax.vjp(activation, a)
    d_b_ref[...] = (d_y * active).astype(d_b_ref.dtype)
    d_a_ref[...] = pull(d_y * b)[0].astype(d_a_ref.dtype)


def _row_sums(parts: Sequence[Array]) -> Array:
    """Sum of every row of pieces [rows, size]."""
    return _sum([part.sum(axis=1) for part in parts])


def _sum(arrays: Sequence[Array]) -> Array:
    return functools.reduce(jnp.add, arrays)
