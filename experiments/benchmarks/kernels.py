"""Attention, norm and gate alone, by each implementation that this machine has; suite `kernels`.

Shapes are those of one layer of the published trunks in a training step (on a CPU of two samples).
Milliseconds are those of a call among twenty that are under way, forward and with gradients;
`least_gb` is what the arrays of the latter hold, each read or written once, and
`relative_error` the norm of what is off from the formula in float32 over that of the formula, of
output and gradients.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jaxtyping import Array

from experiments.benchmarking import turns as turns_lib
from experiments.benchmarking import yardsticks
from fourm_jax.ops import attention, gate, norm
from fourm_jax.utils import errors, hardware

NUM_TOKENS, HEAD_DIM, NUM_KINDS = 256, 64, 4
CALLS, ROUNDS = 20, 7
EPSILON = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What is computed.

    Attributes:
      function: arrays -> output, one array or several.
      shapes: of its arrays; -1 stands for the samples.
      num_samples: on an accelerator.
      kernels: implementations by name: a context in which `function` is traced.
    """

    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    num_samples: int
    kernels: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]]


def _attend(by_ranks: bool) -> Callable[..., Array]:
    def function(q: Array, k: Array, v: Array) -> Array:
        b, n = q.shape[:2]
        if not by_ranks:
            valid = jnp.ones((b, n), bool)
            mask = attention.sees_valid(valid, n, packed=True, padding_may_differ=True)
            return attention.attend(q, k, v, mask)
        # As of targets: tokens of a kind follow each other, those of the first one are a sequence.
        index = jnp.broadcast_to(jnp.arange(n), (b, n))
        kind = index * NUM_KINDS // n
        order = jnp.where(kind == 0, index, 0)
        seen = attention.Visibility(kind, kind, order, order, padding_may_differ=True)
        return attention.attend(q, k, v, seen)

    return function


def _norm(x: Array, scale: Array) -> tuple[Array, tuple[Array, ...]]:
    wide = scale.astype(jnp.float32)
    return norm.fork_norm(x, wide, jnp.zeros_like(wide), EPSILON, x.dtype, uses=3)


def _gate(a: Array, b: Array) -> Array:
    rows = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    return gate.gated(*rows, jax.nn.silu, len(a))


def _backend(name: attention.Backend) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    return lambda: mock.patch.object(attention, "_fastest", lambda q, k, mask: name)


def _of_xla() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(hardware, "platform", lambda: "cpu")


def all_cases() -> dict[str, Case]:
    """By name."""
    on_gpu = jax.default_backend() == "gpu"
    backends: tuple[attention.Backend, ...] = ("triton", "cudnn", "xla") if on_gpu else ("xla",)
    attentions: dict[str, Any] = {name: _backend(name) for name in backends}
    own = {"ours": contextlib.nullcontext} if on_gpu else {}
    found = {}
    for size, num_samples, heads in (("base", 256, 12), ("large", 128, 16), ("xlarge", 64, 32)):
        heads_shape, dim = (-1, NUM_TOKENS, heads, HEAD_DIM), heads * HEAD_DIM
        rest: dict[str, Any] = {"num_samples": num_samples}
        for by_ranks in (False, True):
            found[f"{size}_attention" + "_ranks" * by_ranks] = Case(
                function=_attend(by_ranks), shapes=(heads_shape,) * 3, kernels=attentions, **rest
            )
        rest["kernels"] = {**own, "xla": _of_xla}
        found[f"{size}_norm"] = Case(function=_norm, shapes=((-1, NUM_TOKENS, dim), (dim,)), **rest)
        width = {12: 2048, 16: 2816, 32: 5504}[heads]  # filled up to multiples of 128
        found[f"{size}_gate"] = Case(function=_gate, shapes=((-1, NUM_TOKENS, width),) * 2, **rest)
    return found


def run(cases: Sequence[str] = (), turns: str = "") -> Iterator[dict]:
    """Yield one row per case and implementation.

    Args:
      cases: names of rows; default: all.
      turns: see `experiments.benchmarking.turns.take`.

    Raises:
      ValueError: an unknown case.
    """
    known = all_cases()
    for name in cases:
        if name not in known:
            raise ValueError(errors.unknown_value("case", name, known))
    for name in cases or known:
        case = known[name]
        arrays, pulls = _draw(case)
        with case.kernels["xla"](), jax.default_matmul_precision("highest"):
            wide = jax.tree.map(lambda x: x.astype(jnp.float32), (arrays, pulls))
            expected = _both(case.function)(*wide)
        for kernels, context in case.kernels.items():
            with context():
                forward = jax.jit(case.function).lower(*arrays).compile()
                both = jax.jit(_both(case.function)).lower(arrays, pulls).compile()
            turns_lib.take(turns)
            found = both(arrays, pulls)
            yield {
                "suite": "kernels",
                "case": name,
                "kernels": kernels,
                "shapes": [x.shape for x in arrays],
                "dtype": arrays[0].dtype.name,
                "device": jax.devices()[0].device_kind,
                "forward_ms": _milliseconds(forward, *arrays),
                "both_ms": _milliseconds(both, arrays, pulls),
                "least_gb": _gigabytes(arrays, pulls, found),
                "relative_error": jax.tree.leaves(jax.tree.map(_error, found, expected)),
            }


def _draw(case: Case) -> tuple[tuple[Array, ...], Any]:
    """Random arrays of a case, and gradients of its output."""
    on_cpu = jax.default_backend() == "cpu"
    dtype = jnp.float32 if on_cpu else jnp.bfloat16
    key, num_samples = jax.random.key(0), 2 if on_cpu else case.num_samples

    def normal(number: int, shape: Sequence[int]) -> Array:
        full = [num_samples if size < 0 else size for size in shape]
        return jax.random.normal(jax.random.fold_in(key, number), full, dtype)

    arrays = tuple(normal(number, shape) for number, shape in enumerate(case.shapes))
    outputs, shape_of = jax.tree.flatten(jax.eval_shape(case.function, *arrays))
    pulls = [normal(10 + number, one.shape) for number, one in enumerate(outputs)]
    return arrays, jax.tree.unflatten(shape_of, pulls)


def _both(function: Callable[..., Any]) -> Callable[[tuple[Array, ...], Any], Any]:
    """(arrays, gradients of the output) -> (output, gradients of the arrays)."""

    def both(arrays: tuple[Array, ...], pulls: Any) -> Any:
        output, pull = jax.vjp(function, *arrays)
        return output, pull(pulls)

    return both


def _milliseconds(function: Callable[..., Any], *arguments: Any) -> float:
    def calls() -> Any:
        for _ in range(CALLS):
            result = function(*arguments)
        return result

    return round(1e3 * yardsticks.median_seconds(calls, rounds=ROUNDS) / CALLS, 4)


def _gigabytes(*arrays: Any) -> float:
    return round(sum(x.nbytes for x in jax.tree.leaves(arrays)) / 1e9, 3)


def _error(found: Array, expected: Array) -> float:
    off = jnp.linalg.norm((found.astype(jnp.float32) - expected).ravel())
    return float(jnp.round(off / jnp.linalg.norm(expected.ravel()), 7))
