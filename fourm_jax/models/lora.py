"""Low-rank adapters as functions on parameters: y = W x + scale · B A x (docs/published.md#lora).

The adapted weights are W + scale · A B, so training differentiates `merge` with respect to the
adapters, and fusing them for good is the same call.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from fourm_jax.utils import rng

ATTENTION = r"attention/\w+/kernel$"
MLP = r"feed_forward/fc\d/kernel$"
ALL = rf"{ATTENTION}|{MLP}"


def init(
    key: Key[Array, ""], params: Mapping[str, Any], *, pattern: str = ALL, rank: int = 4
) -> dict[str, dict[str, Array]]:
    """Return {path: {"a": [layers, in, r], "b": [layers, r, out]}}; A ~ N(0, 1/rank), B = 0.

    Args:
      params: of a FourM (or a part of one), layers stacked.
      pattern: regex on the paths ("/" between names) of the kernels to adapt.
      rank: r per projection; a kernel that packs qkv (kv) gets 3 (2) times as much.

    Raises:
      ValueError: no kernel matches.
    """
    adapters = {}
    for path, kernel in flax.traverse_util.flatten_dict(params, sep="/").items():
        if not re.search(pattern, path):
            continue
        num_in, num_out, packed = _sizes(path, kernel.shape)
        layers, width = kernel.shape[0], rank * packed
        a = jax.random.normal(rng.stream(key, path), (layers, num_in, width)) / rank
        adapters[path] = {"a": a, "b": jnp.zeros((layers, width, num_out))}
    if not adapters:
        raise ValueError(f"no parameter matches the LoRA pattern {pattern!r}")
    return adapters


def merge(
    params: Mapping[str, Any], adapters: Mapping[str, Mapping[str, Array]], scale: float = 1.0
) -> dict[str, Any]:
    """Return the parameters with W + scale · A B in place of every adapted W."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    for path, adapter in adapters.items():
        kernel = flat[path]
        change = jnp.einsum("lir,lro->lio", adapter["a"], adapter["b"]) * scale
        flat[path] = kernel + change.reshape(kernel.shape).astype(kernel.dtype)
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def by_path(nested: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
    """{path: {"a", "b"}} of adapters that are nested like the parameters they belong to."""
    found: dict[str, dict[str, Array]] = {}
    for name, leaf in flax.traverse_util.flatten_dict(nested, sep="/").items():
        path, _, which = name.rpartition("/")
        found.setdefault(path, {})[which] = leaf
    return found


def _sizes(path: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(inputs, outputs, packed projections) of a stacked kernel."""
    if path.endswith("out/kernel"):  # [l, h, k, d]
        return shape[1] * shape[2], shape[3], 1
    packed = shape[2] if len(shape) == 5 else 1  # [l, d, count, h, k] or [l, in, out]
    return shape[1], math.prod(shape[2:]), packed
