"""The product of an activation and its gate, with both gradients from one pass over memory."""

import functools
from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from fourm_jax.ops import norm

Activation = Callable[[Array], Array]


def gated(
    a: Float[Array, "*n"], b: Float[Array, "*n"], activation: Activation
) -> Float[Array, "*n"]:
    """Return activation(a) · b; its backward pass is a kernel of `ops.fused` on one NVIDIA GPU."""
    return _gated(a, b, activation) if _uses_kernel(a, activation) else activation(a) * b


def _uses_kernel(a: Float[Array, "*n"], activation: Activation) -> bool:
    if not norm.is_one_gpu():
        return False
    from fourm_jax.ops import fused  # Pallas is slow to import and needs no place on a CPU

    return fused.gate_fits(a.size, activation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _gated(
    a: Float[Array, "*n"], b: Float[Array, "*n"], activation: Activation
) -> Float[Array, "*n"]:
    return activation(a) * b


def _forward(
    a: Float[Array, "*n"], b: Float[Array, "*n"], activation: Activation
) -> tuple[Float[Array, "*n"], tuple[Array, Array]]:
    return activation(a) * b, (a, b)


def _backward(
    activation: Activation, saved: tuple[Array, Array], d_y: Float[Array, "*n"]
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    from fourm_jax.ops import fused

    return fused.gate_backward(*saved, d_y, activation)


_gated.defvjp(_forward, _backward)
