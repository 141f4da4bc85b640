"""What the device could do: a plain product, a plain training step of the trunk's shape; memory."""

import dataclasses
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from fourm_jax.models import layers

VOCABULARY = 16_384  # of the one dense head of the plain step


def median_seconds(function: Callable[[], Any], *, rounds: int, seconds: float = 20.0) -> float:
    """Median time of a call; fewer rounds where `seconds` run out; the first call is left out."""
    jax.block_until_ready(function())
    times: list[float] = []
    while len(times) < rounds and (sum(times) < seconds or not times):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_memory() -> dict[str, float]:
    """Most memory held so far, in GiB: of the first device, or on a CPU of this process."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return {"peak_gib": round(stats["peak_bytes_in_use"] / 2**30, 2)}
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of Linux
    return {"peak_rss_gib": round(kib / 2**20, 2)}


def product() -> dict[str, float]:
    """10^9 operations per second of a product: float32 on a CPU, bfloat16 elsewhere."""
    if jax.default_backend() == "cpu":
        return {"sgemm_gflops": round(_product_gflops(jnp.float32, 2048), 1)}
    return {"product_gflops": round(_product_gflops(jnp.bfloat16, 8192), 1)}


def _product_gflops(dtype: Any, size: int) -> float:
    """10^9 operations per second of a product of two random square matrices."""
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    return 2 * size**3 / median_seconds(lambda: product(a), rounds=9) / 1e9


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A plain step, ready to be timed.

    Attributes:
      first_state: key -> parameters and moments.
      step: (state, x, y, ids) -> state.
      tokens: shape and dtype of x and y, [b, n, d].
    """

    first_state: Callable[[Array], Any]
    step: Callable[..., Any]
    tokens: jax.ShapeDtypeStruct

    def seconds(self, *, rounds: int = 7) -> float:
        """Median time of a step."""
        shape = self.tokens.shape
        x, y = jax.random.normal(jax.random.key(1), (2, *shape), self.tokens.dtype)
        ids = jax.random.randint(jax.random.key(2), shape[:2], 0, VOCABULARY)
        state = [self.first_state(jax.random.key(0))]

        def call() -> Array:
            state[0] = self.step(state[0], x, y, ids)
            return state[0][0]["head"]

        return median_seconds(call, rounds=rounds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainStep:
    """A training step of pre-norm blocks over random vectors, written as plainly as possible.

    Full attention without a mask, SwiGLU, one dense head, AdamW; no modalities, no embeddings, no
    masking. `time.ms` of a real step over this one is what everything around the blocks costs.
    """

    dim: int
    encoder_depth: int
    decoder_depth: int
    num_heads: int
    num_tokens: int
    dtype: Any

    def compile(self, batch_size: int) -> "CompiledStep":
        """Compile a step; no array is made."""
        optimizer = optax.adamw(1e-4)
        ids = jax.ShapeDtypeStruct((batch_size, self.num_tokens), jnp.int32)
        tokens = jax.ShapeDtypeStruct((*ids.shape, self.dim), self.dtype)

        def first_state(key: Array) -> Any:
            params = self._init(key)
            return params, optimizer.init(params)

        def step(state: Any, x: Array, y: Array, ids: Array) -> Any:
            params, moments = state
            gradient = jax.grad(self._loss)(params, x, y, ids)
            updates, moments = optimizer.update(gradient, moments, params)
            return optax.apply_updates(params, updates), moments

        state = jax.eval_shape(first_state, jax.random.key(0))
        lowered = jax.jit(step, donate_argnums=0).lower(state, tokens, tokens, ids)
        return CompiledStep(jax.jit(first_state), lowered.compile(), tokens)

    def _init(self, key: Array) -> dict[str, Any]:
        dim, width = self.dim, -(-layers.hidden_dim(self.dim, "swiglu") // 128) * 128
        shapes = {"qkv": (dim, 3 * dim), "out": (dim, dim)}
        shapes |= {"gate": (dim, width), "up": (dim, width), "down": (width, dim)}
        cross = {"q": (dim, dim), "kv": (dim, 2 * dim), "cross_out": (dim, dim)}

        def stack(
            key: Array, depth: int, shapes: Mapping[str, tuple[int, int]]
        ) -> dict[str, Array]:
            keys = jax.random.split(key, len(shapes))
            kernels = {
                name: 0.02 * jax.random.normal(k, (depth, *shape))
                for k, (name, shape) in zip(keys, shapes.items(), strict=True)
            }
            return kernels | {"scales": jnp.ones((depth, 4, dim))}

        keys = jax.random.split(key, 3)
        return {
            "encoder": stack(keys[0], self.encoder_depth, shapes),
            "decoder": stack(keys[1], self.decoder_depth, shapes | cross),
            "head": 0.02 * jax.random.normal(keys[2], (dim, VOCABULARY)),
        }

    def _loss(self, params: Any, x: Array, y: Array, ids: Array) -> Array:
        context = jax.lax.scan(lambda x, p: (self._block(x, p, None), None), x, params["encoder"])[
            0
        ]
        y = jax.lax.scan(lambda y, p: (self._block(y, p, context), None), y, params["decoder"])[0]
        logits = self._product(y, params["head"]).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, ids).mean()

    def _block(self, x: Array, p: Any, context: Array | None) -> Array:
        heads = self._product(_norm(x, p["scales"][0]), p["qkv"])
        x += self._product(self._attention(*jnp.split(heads, 3, axis=-1)), p["out"])
        if context is not None:
            q = self._product(_norm(x, p["scales"][1]), p["q"])
            kv = self._product(_norm(context, p["scales"][2]), p["kv"])
            attended = self._attention(q, *jnp.split(kv, 2, axis=-1))
            x += self._product(attended, p["cross_out"])
        y = _norm(x, p["scales"][3])
        hidden = jax.nn.silu(self._product(y, p["gate"])) * self._product(y, p["up"])
        return x + self._product(hidden, p["down"])

    def _attention(self, *heads: Array) -> Array:
        shape = heads[0].shape
        q, k, v = (x.reshape(*x.shape[:2], self.num_heads, -1) for x in heads)
        fused = jax.default_backend() == "gpu" and q.dtype == jnp.bfloat16
        implementation: Literal["cudnn", "xla"] = "cudnn" if fused else "xla"
        out = jax.nn.dot_product_attention(q, k, v, implementation=implementation)
        return out.reshape(shape)

    def _product(self, x: Array, kernel: Array) -> Array:
        return x @ kernel.astype(self.dtype)


def _norm(x: Array, scale: Array) -> Array:
    y = x.astype(jnp.float32)
    y -= y.mean(-1, keepdims=True)
    y *= jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + layers.NORM_EPSILON)
    return (y * scale).astype(x.dtype)
