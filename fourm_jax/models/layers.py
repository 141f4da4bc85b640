"""The parts of a Transformer block: head projections, attention, MLP, stochastic depth."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from fourm_jax.ops import attention, gate
from fourm_jax.ops import norm as norm_op
from fourm_jax.utils import hardware

NORM_EPSILON = 1e-6
FEW_ROWS = 1024  # below them an accelerator takes one product for all sets of heads, too
# Bytes up to which XLA makes one product of those that take one array on a GPU, whose result it
# then cuts by copies: two products of that size together (xla_gpu_dot_merger_threshold_mb).
JOINED_BELOW = 2**25
CUT = "kernels"  # of `HeadsIn` after `cut_heads`

# Xavier-uniform per projection: the published init treats a fused qkv as three matrices.
XAVIER_HEADS = nn.initializers.variance_scaling(
    1.0, "fan_avg", "uniform", in_axis=0, out_axis=(2, 3), batch_axis=(1,)
)
XAVIER_OUT = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=(0, 1), out_axis=2)
XAVIER = nn.initializers.xavier_uniform()

# Names of what a rematerialization policy may keep: matrix products and the sums of branches.
# Norms, activations and gates are cheap to compute again and costly to write and read.
SAVED_NAMES = ("heads", attention.SAVED, "hidden", "stream", norm_op.SAVED)

BIASED = ("qkv", "proj", "mlp", "norm")  # parts of a block that may have biases
UseBias = bool | tuple[str, ...]
MlpKind = Literal["gelu", "silu", "relu", "geglu", "swiglu", "reglu"]


def exact_gelu(x: Array) -> Array:
    """GELU with the error function, as published (not the tanh approximation)."""
    return nn.gelu(x, approximate=False)


# kind -> (activation, whether fc3 gates it); published: "swiglu" and "gelu"
MLPS: Mapping[str, tuple[Callable[[Array], Array], bool]] = {
    "gelu": (exact_gelu, False), "silu": (nn.silu, False), "relu": (nn.relu, False),
    "geglu": (exact_gelu, True), "swiglu": (nn.silu, True), "reglu": (nn.relu, True),
}  # fmt: skip


def has_bias(use_bias: UseBias, part: str) -> bool:
    """Whether one part of `BIASED` has biases: all or none of them, or those that are named."""
    return use_bias if isinstance(use_bias, bool) else part in use_bias


class Norm(nn.LayerNorm):
    """Flax's LayerNorm with the backward pass of `ops.norm`."""

    def __call__(  # type: ignore[override]  # nobody passes flax's `mask`
        self, x: Float[Array, "*b d"]
    ) -> Float[Array, "*b d"]:
        return self.spread(x, 1)[0]

    def spread(self, x: Float[Array, "*b d"], uses: int) -> tuple[Array, ...]:
        """The norm, once for each of the products that take it (`ops.norm.layer_norm`)."""
        return self._normalize(x, uses, fork=False)[1]

    def fork(self, x: Float[Array, "*b d"], uses: int) -> tuple[Array, tuple[Array, ...]]:
        """Return (x, its norms), for a branch that is added to x (`ops.norm.fork_norm`)."""
        return self._normalize(x, uses, fork=True)

    @nn.compact
    def _normalize(
        self, x: Float[Array, "*b d"], uses: int, fork: bool
    ) -> tuple[Array, tuple[Array, ...]]:
        assert self.dtype is not None
        shape = x.shape[-1:]
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", self.bias_init, shape) if self.use_bias else jnp.zeros(shape)
        arguments = (x, scale, bias, self.epsilon, self.dtype)
        if hardware.platform() == "cpu":  # where nothing is gained
            return x, norm_op.layer_norm(*arguments) * uses
        if fork:
            return norm_op.fork_norm(*arguments, uses)
        return x, norm_op.layer_norm(*arguments, uses)


def norm(*, use_bias: bool, dtype: DTypeLike, name: str | None = None) -> Norm:
    """LayerNorm with statistics in float32 (mean-subtracting, eps 1e-6).

    Source: docs/published.md#blocks.
    """
    return Norm(
        epsilon=NORM_EPSILON, use_bias=use_bias, dtype=dtype, use_fast_variance=False, name=name
    )


# [b, n, d]: an array, or the equal ones of `Norm.spread`, one for each product that takes it.
Copies = Float[Array, "_ _ _"] | tuple[Float[Array, "_ _ _"], ...]


def copies(x: Copies, uses: int) -> tuple[Float[Array, "_ _ _"], ...]:
    """One array for each of the products that take `x`."""
    return x if isinstance(x, tuple) else (x,) * uses


class HeadsIn(nn.Module):
    """Project to `count` sets of heads; one kernel [d, count, h, k].

    One product per set: the kernel is cut, which costs next to nothing, and not the activations,
    whose gradients would be joined by copies in the backward pass. Few tokens take one product for
    all: the kernel is the larger one then, and an accelerator waits for each product to start.
    """

    count: int
    num_heads: int
    use_bias: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Copies) -> list[Float[Array, "b n h k"]]:
        xs = copies(x, self.count)
        dim = xs[0].shape[-1]
        heads = (self.count, self.num_heads, dim // self.num_heads)
        if self.has_variable("params", CUT):
            parts = self._project(xs, self.get_variable("params", CUT))
        else:
            kernel = self.param("kernel", XAVIER_HEADS, (dim, *heads)).astype(self.dtype)
            parts = self._project(xs, kernel)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, heads).astype(self.dtype)
            parts = [part + one for part, one in zip(parts, bias, strict=True)]
        return [self._named(part) for part in parts]

    @staticmethod
    def _named(part: Float[Array, "b n h k"]) -> Float[Array, "b n h k"]:
        """What a policy may keep; on a TPU as the products have it, or each layer would copy it."""
        if hardware.platform() != "tpu":
            return checkpoint_name(part, "heads")
        return checkpoint_name(part.reshape(*part.shape[:2], -1), "heads").reshape(part.shape)

    @staticmethod
    def _project(
        xs: tuple[Float[Array, "b n d"], ...],
        kernel: Float[Array, "d c h k"] | tuple[Float[Array, "d h k"], ...],
    ) -> list[Float[Array, "b n h k"]]:
        x, on_cpu = xs[0], hardware.platform() == "cpu"
        rows = as_rows(x)
        if isinstance(kernel, tuple):
            kernels = kernel
        elif len(rows) < (len(kernel) if on_cpu else FEW_ROWS):
            y = product(rows, kernel.reshape(len(kernel), -1))
            return _split(y.reshape(*x.shape[:2], *kernel.shape[1:]), axis=2)
        else:
            kernels = tuple(_split(kernel, axis=1))
        if on_cpu:
            products = [rows @ one.reshape(len(one), -1) for one in kernels]
            return [y.reshape(*x.shape[:2], *kernels[0].shape[1:]) for y in products]
        if hardware.platform() == "gpu" and x.nbytes < JOINED_BELOW:
            xs = jax.lax.optimization_barrier(xs)
        pairs = zip(xs, kernels, strict=True)
        if hardware.platform() == "tpu":  # as `ops.flash_tpu` takes them, without a copy
            products = [x @ one.reshape(len(one), -1) for x, one in pairs]
            return [y.reshape(*x.shape[:2], *kernels[0].shape[1:]) for y in products]
        return [jnp.einsum("bnd,dhk->bnhk", x, one) for x, one in pairs]


def _split(x: Array, axis: int) -> list[Array]:
    """Cut along an axis, which goes; not slices: the gradient of a split is one concatenation."""
    return [p.squeeze(axis) for p in jax.lax.split(x, [1] * x.shape[axis], axis)]


def cut_heads(params: Any) -> Any:
    """Stacked parameters with an array for each set of heads of `HeadsIn`.

    A GPU then reads the kernels of a layer where they are; of the joined ones, [l, d, c, h, k], it
    copies the layer's sets in every pass.
    """
    if not isinstance(params, Mapping):
        return params
    if getattr(params.get("kernel"), "ndim", 0) == 5:
        kernels = tuple(_split(params["kernel"], axis=2))
        return {CUT: kernels, **{name: x for name, x in params.items() if name != "kernel"}}
    return {name: cut_heads(part) for name, part in params.items()}


def join_heads(params: Any) -> Any:
    """The parameters of one layer as they were before `cut_heads`."""
    if not isinstance(params, Mapping):
        return params
    if CUT in params:
        kernel = jnp.stack(params[CUT], axis=1)
        return {"kernel": kernel, **{name: x for name, x in params.items() if name != CUT}}
    return {name: join_heads(part) for name, part in params.items()}


class HeadsOut(nn.Module):
    """Join the heads; kernel [h, k, d]."""

    use_bias: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n h k"], is_zero: Bool[Array, "b"] | None = None
    ) -> Float[Array, "b n d"]:
        """The projection, of zeros instead of `x` in samples that say so."""
        num_heads, head_dim = x.shape[-2:]
        dim = num_heads * head_dim
        kernel = self.param("kernel", XAVIER_OUT, (num_heads, head_dim, dim)).astype(self.dtype)
        if hardware.platform() == "cpu":
            joined = x.reshape(*x.shape[:2], dim)
            y = product(as_rows(joined), kernel.reshape(dim, dim)).reshape(joined.shape)
        elif hardware.platform() == "tpu":
            y = x.reshape(*x.shape[:2], dim) @ kernel.reshape(dim, dim)  # as in `HeadsIn`
        else:
            y = jnp.einsum("bnhk,hkd->bnd", x, kernel)
        if is_zero is not None:
            y = jnp.where(is_zero[:, None, None], jnp.zeros((), y.dtype), y)
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (dim,)).astype(self.dtype)
        return y


class Attention(nn.Module):
    """Multi-head attention; `cross` projects keys and values from another sequence.

    The steps are separate methods so that cached decoding can keep keys and values:
    `attend(*queries_and_memory(x))` is self-attention.
    """

    num_heads: int
    cross: bool = False
    use_bias: UseBias = False
    qk_norm: bool = False
    backend: attention.Backend = "auto"
    dtype: DTypeLike = jnp.float32

    def setup(self):
        biased = has_bias(self.use_bias, "qkv")
        heads: dict[str, Any] = {
            "num_heads": self.num_heads,
            "use_bias": biased,
            "dtype": self.dtype,
        }
        if self.cross:
            self.q = HeadsIn(count=1, **heads)
            self.kv = HeadsIn(count=2, **heads)
        else:
            self.qkv = HeadsIn(count=3, **heads)
        if self.qk_norm:
            self.q_norm = norm(use_bias=has_bias(self.use_bias, "norm"), dtype=self.dtype)
            self.k_norm = norm(use_bias=has_bias(self.use_bias, "norm"), dtype=self.dtype)
        self.out = HeadsOut(use_bias=has_bias(self.use_bias, "proj"), dtype=self.dtype)

    def __call__(
        self,
        x: Copies,
        context: Copies | None = None,
        mask: attention.Visibility | None = None,
    ) -> Float[Array, "b n d"]:
        """Attend from `x` [b, n, d] to itself, or to `context` [c, m, d] where `cross`.

        With fewer contexts than rows, b / c rows after each other share a context, whose keys and
        values are computed once; `mask` is that of their queries in one row [c, n · b / c].
        """
        if self.cross:
            assert context is not None
            (x,), q = copies(x, 1), self.queries(x)
            k, v = self.memory(context)
            q = q.reshape(len(k), -1, *q.shape[2:])
            return self.attend(q, k, v, mask).reshape(x.shape)
        return self.attend(*self.queries_and_memory(x), mask)

    def queries(self, x: Copies) -> Float[Array, "b n h k"]:
        """Queries of a cross-attention."""
        (q,) = self.q(x)
        return self.q_norm(q) if self.qk_norm else q

    def memory(self, context: Copies) -> tuple[Array, Array]:
        """Keys and values of a cross-attention, [b, m, h, k] each."""
        k, v = self.kv(context)
        return (self.k_norm(k) if self.qk_norm else k), v

    def queries_and_memory(self, x: Copies) -> tuple[Array, Array, Array]:
        """Queries, keys and values of a self-attention, [b, n, h, k] each."""
        q, k, v = self.qkv(x)
        return (self.q_norm(q), self.k_norm(k), v) if self.qk_norm else (q, k, v)

    def attend(
        self,
        q: Float[Array, "b n h k"],
        k: Float[Array, "b m h k"],
        v: Float[Array, "b m h k"],
        mask: attention.Visibility | None = None,
    ) -> Float[Array, "b n d"]:
        """Attend and join the heads."""
        is_zero = None
        if mask is not None and mask.key_length is not None and hardware.platform() == "gpu":
            # Queries that see nothing give 0: set behind the product, where the branch is added,
            # as of what the kernel writes it would be one more pass over it.
            is_zero = None if mask.padding_may_differ else mask.key_length == 0
            mask = dataclasses.replace(mask, padding_may_differ=True)
        attended = attention.attend(q, k, v, mask, backend=self.backend)
        return self.out(attended, is_zero)

    def recall(
        self,
        q: Float[Array, "b n h k"],
        k: Float[Array, "b h m k"],
        v: Float[Array, "b h m k"],
        mask: attention.Visibility,
    ) -> Float[Array, "b n d"]:
        """As `attend`, for few queries and kept keys and values, whose heads are first.

        The mask may be that of one query where `q` has it twice.
        """
        num_queries = mask.query_segment.shape[1]
        first = jnp.swapaxes(q[:, :num_queries], 1, 2)
        attended = jnp.swapaxes(attention.heads_first(first, k, v, mask), 1, 2)
        return self.out(attended if num_queries == q.shape[1] else twice(attended))


class Mlp(nn.Module):
    """fc2(act(fc1 x)), or fc2(act(fc1 x) · fc3 x) with a gate; `kind` is a key of `MLPS`.

    Matrix units work on tiles: inside the step the hidden width is filled up with zeros to a
    multiple of `width_multiple()`, which changes no result (every activation maps 0 to 0) and no
    parameter. `cuts_stacked`: what its gate needs waits in a stack (`ops.gate`).
    """

    hidden_dim: int
    kind: MlpKind = "swiglu"
    use_bias: bool = False
    dtype: DTypeLike = jnp.float32
    cuts_stacked: bool = False

    @nn.compact
    def __call__(self, x: Copies) -> Float[Array, "b n d"]:
        activation, gated = MLPS[self.kind]
        xs = copies(x, 1 + gated)
        dim, width, multiple = xs[0].shape[-1], self.hidden_dim, width_multiple()
        padded = width + -width % multiple
        dense: dict[str, Any] = {"use_bias": self.use_bias, "dtype": self.dtype}
        enter: dict[str, Any] = {"shape": (dim, width), "padded": (dim, padded), **dense}
        y = checkpoint_name(PaddedDense(**enter, name="fc1")(as_rows(xs[0])), "hidden")
        if gated:
            factor = checkpoint_name(PaddedDense(**enter, name="fc3")(as_rows(xs[1])), "hidden")
            y = gate.gated(y, factor, activation, len(xs[0]), cuts_stacked=self.cuts_stacked)
        else:
            y = activation(y)
        leave: dict[str, Any] = {"shape": (width, dim), "padded": (padded, dim), **dense}
        return PaddedDense(**leave, name="fc2")(y).reshape(xs[0].shape)


class PaddedDense(nn.Module):
    """A dense layer with a kernel of `shape` that is filled up with zeros to `padded` for use."""

    shape: tuple[int, int]
    padded: tuple[int, int]
    use_bias: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "r d"]) -> Float[Array, "r f"]:
        kernel = self.param("kernel", XAVIER, self.shape).astype(self.dtype)
        y = product(x.astype(self.dtype), self._fill(kernel))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, self.shape[1:])
            y += self._fill(bias.astype(self.dtype))
        return y

    def _fill(self, x: Array) -> Array:
        missing = [p - s for p, s in zip(self.padded, self.shape, strict=True)]
        return jnp.pad(x, [(0, size) for size in missing[-x.ndim :]])


def as_rows(x: Float[Array, "*b d"]) -> Float[Array, "r d"]:
    """Two axes instead of three or more.

    XLA's CPU backend transposes what products with a batch axis keep for their backward pass,
    which took three times as long.
    """
    return x.reshape(-1, x.shape[-1])


def product(x: Float[Array, "r d"], kernel: Float[Array, "d f"]) -> Float[Array, "r f"]:
    """Return x @ kernel.

    One row costs what reading the kernel costs. XLA's CPU backend reads with one core; as two
    products, of the halves of both, it takes two cores.
    """
    halves = (2, len(kernel) // 2)
    if len(x) > 1 or len(kernel) % 2 or hardware.platform() != "cpu":
        return x @ kernel
    return jnp.einsum("gi,gif->gf", x.reshape(halves), kernel.reshape(*halves, -1)).sum(0)[None]


def twice(x: Float[Array, "1 1 *d"]) -> Float[Array, "1 2 *d"]:
    """A single row two times, which the compiler may not tell.

    Of one row XLA makes no product on a GPU: it multiplies, writes what is to be summed up, and
    sums it up, and a norm is three kernels. For two rows each is one. Attention of one query is one
    kernel, of two it is three.
    """
    return jax.lax.optimization_barrier(jnp.repeat(x, 2, axis=1))


def width_multiple() -> int:
    """What widths are filled up to for the matrix units of the device in use."""
    return 1 if hardware.platform() == "cpu" else 128


def hidden_dim(dim: int, kind: str, ratio: float = 4.0) -> int:
    """Width of the MLP by the published rule: ratio · D, and two thirds of that with a gate.

    Raises:
      ValueError: `kind` is no key of `MLPS`.
    """
    if kind not in MLPS:
        raise ValueError(f"unknown mlp {kind!r}, allowed: {sorted(MLPS)}")
    return int(2 * int(dim * ratio) / 3) if MLPS[kind][1] else int(dim * ratio)


def residual(
    module: nn.Module, x: Float[Array, "b n d"], branch: Float[Array, "b n d"], rate: Array | None
) -> Float[Array, "b n d"]:
    """Return x + branch; with a `rate`, whole samples of the branch are dropped (DropPath).

    Args:
      module: whose "drop_path" random stream is used.
      rate: [] probability of dropping; None = never, no randomness needed.
    """
    if rate is None:
        return x + branch
    keep = jax.random.bernoulli(module.make_rng("drop_path"), 1 - rate, (x.shape[0], 1, 1))
    return x + jnp.where(keep, branch / (1 - rate).astype(branch.dtype), 0)
