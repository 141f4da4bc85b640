"""The product of an activation and its gate, with both gradients from one pass over memory."""

import functools
from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from fourm_jax.ops import each_device
from fourm_jax.utils import hardware

Activation = Callable[[Array], Array]


def gated(
    a: Float[Array, "r f"],
    b: Float[Array, "r f"],
    activation: Activation,
    num_samples: int,
    *,
    cuts_stacked: bool = False,
) -> Float[Array, "r f"]:
    """Return activation(a) · b; its backward pass is a kernel of `ops.fused` on NVIDIA GPUs.

    Args:
      num_samples: that the rows are of, one after the other; each device takes its own, and its own
        hidden channels.
      cuts_stacked: blocks run in a loop that stacks a and b, and computes the gate again. Then XLA
        makes one kernel of the gate and both gradients, which cuts a and b out of the stack; for
        ours they would be copied first.
    """
    if not _uses_kernel(a, activation, num_samples):
        return activation(a) * b
    return _gated(a, b, activation, not cuts_stacked)


def _uses_kernel(a: Float[Array, "r f"], activation: Activation, num_samples: int) -> bool:
    num_parts = 0
    if hardware.platform() == "gpu":
        num_parts = each_device.num_parts(num_samples)
        num_parts *= each_device.num_parts(a.shape[1], each_device.CHANNELS)
    if not num_parts:
        return False
    from fourm_jax.ops import fused  # Pallas is slow to import and needs no place on a CPU

    return fused.gate_fits(a.size // num_parts, activation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _gated(
    a: Float[Array, "r f"], b: Float[Array, "r f"], activation: Activation, kernel: bool
) -> Float[Array, "r f"]:
    del kernel
    return activation(a) * b


def _forward(
    a: Float[Array, "r f"], b: Float[Array, "r f"], activation: Activation, kernel: bool
) -> tuple[Float[Array, "r f"], tuple[Array, Array]]:
    del kernel
    return activation(a) * b, (a, b)


def _backward(
    activation: Activation, kernel: bool, saved: tuple[Array, Array], d_y: Float[Array, "r f"]
) -> tuple[Float[Array, "r f"], Float[Array, "r f"]]:
    gradients: tuple[Array, Array]
    if not kernel:
        gradients = jax.vjp(lambda a, b: activation(a) * b, *saved)[1](d_y)
        return gradients
    from fourm_jax.ops import fused

    own = P(each_device.SAMPLES, each_device.CHANNELS)
    gradients = each_device.run(
        functools.partial(fused.gate_backward, activation=activation),
        in_specs=(own, own, own),
        out_specs=(own, own),
    )(*saved, d_y)
    return gradients


_gated.defvjp(_forward, _backward)
