"""What rematerialization costs and saves, without a device: suite `remat` of experiments.benchmark.

Encoder and decoder of the published trunks are traced, not run, as one GPU computes them: bfloat16,
256 + 256 tokens, fused attention, a loop over blocks. One row per size and policy: what waits for
the backward pass, and the products that are computed twice, as a share of those that a step
needs (`train.flops`): what a policy costs in time where products keep the device busy.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval
from jaxtyping import Array, Float

from configs import fourm as fourm_config
from fourm_jax.convert import fourm as convert_fourm
from fourm_jax.models import fourm, from_config, layers, transformer
from fourm_jax.ops import each_device
from fourm_jax.train import flops
from fourm_jax.utils import errors, hardware

SIZES = ("base", "large", "xlarge")
POLICIES: tuple[transformer.Remat, ...] = ("none", "names", "dots", "full", "offload")
NUM_TOKENS = 256
MIB = 2**20


def run(cases: Sequence[str] = ()) -> Iterator[dict]:
    """Yield one row per size and policy.

    Args:
      cases: names of rows; default: all.

    Raises:
      ValueError: an unknown case.
    """
    rows = {f"{size}_{remat}": (size, remat) for size in SIZES for remat in POLICIES}
    for name in cases:
        if name not in rows:
            raise ValueError(errors.unknown_value("case", name, rows))
    for name in cases or rows:
        size, remat = rows[name]
        model = from_config.make_model(fourm_config.get_config(f"mix=mod21,size={size}"))
        with as_on_a_gpu():
            waiting = bytes_waiting(model, remat, 2) - bytes_waiting(model, remat, 1)
            again = operations(model, remat) - operations(model, "none")
        step = flops.training_flops(model, NUM_TOKENS, NUM_TOKENS)
        yield {
            "suite": "remat",
            "case": name,
            "waiting_mib_per_sample": round(waiting / MIB, 1),
            "products_again_gflops_per_sample": round(again / 1e9, 1),
            "products_again_share": round(again / step, 4),
        }


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """What is traced here chooses its kernels as one NVIDIA GPU does."""
    with (
        mock.patch.object(hardware, "platform", lambda: "gpu"),
        mock.patch.object(each_device, "num_parts", lambda *_: 1),
    ):
        yield


def bytes_waiting(model: fourm.FourM, remat: transformer.Remat, batch_size: int) -> int:
    """What the forward pass leaves for the backward pass, parameters included."""

    def forward(*arguments: Any) -> Any:
        return jax.vjp(stacks(model, remat), *arguments)[1]

    kept = jax.eval_shape(forward, *arguments_of(model, batch_size))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def operations(model: fourm.FourM, remat: transformer.Remat) -> float:
    """Operations of the products of one sample, forward and backward."""

    def total(*arguments: Any) -> Float[Array, ""]:
        return stacks(model, remat)(*arguments).sum(dtype=jnp.float32)

    traced = jax.make_jaxpr(jax.grad(total, argnums=(0, 1, 2)))(*arguments_of(model, 1)).jaxpr
    used, _ = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
    return count_products(used)


def stacks(model: fourm.FourM, remat: transformer.Remat) -> Any:
    """A function of parameters, inputs [b, n, d] and targets [b, m, d]: features [b, m, d]."""
    encoder, decoder = (
        transformer.Stack(
            depth=depth,
            cross=cross,
            num_heads=model.num_heads,
            mlp=model.mlp,
            mlp_dim=model.mlp_dim or layers.hidden_dim(model.dim, model.mlp),
            remat=remat,
            attention="triton",
            dtype=jnp.bfloat16,
        )
        for depth, cross in ((model.encoder_depth, False), (model.decoder_depth, True))
    )

    def forward(params: Any, x: Float[Array, "b n d"], y: Float[Array, "b m d"]) -> Any:
        context = encoder.apply({"params": params["encoder"]}, x)
        return decoder.apply({"params": params["decoder"]}, y, context)

    return forward


def arguments_of(model: fourm.FourM, batch_size: int) -> tuple[Any, Any, Any]:
    """Shapes of parameters, inputs and targets."""
    tokens = convert_fourm.example_tokens(model)
    params = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
    x = jax.ShapeDtypeStruct((batch_size, NUM_TOKENS, model.dim), jnp.bfloat16)
    return params, x, x


def count_products(jaxpr: jax.extend.core.Jaxpr) -> float:
    """Operations of all products, two per multiply-add, in every round of loops and kernels."""
    total = 0.0
    read = {id(x) for equation in jaxpr.eqns for x in equation.invars} | set(map(id, jaxpr.outvars))
    for equation in jaxpr.eqns:
        name, given = equation.primitive.name, equation.params
        if name == "pallas_call" and not any(id(x) in read for x in equation.outvars):
            continue  # JAX leaves it where it is, compilers do not
        if name == "dot_general":
            ((axes, _), _) = given["dimension_numbers"]
            left: Any = equation.invars[0].aval
            out: Any = equation.outvars[0].aval
            total += 2 * math.prod(out.shape) * math.prod(left.shape[axis] for axis in axes)
        rounds = given["length"] if name == "scan" else 1
        if name == "pallas_call":
            rounds = math.prod(given["grid_mapping"].grid)
        total += rounds * sum(map(count_products, jax.extend.core.jaxprs_in_params(given)))
    return total
