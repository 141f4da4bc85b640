"""Stacks of pre-norm blocks, scanned over stacked parameters; what is saved is chosen by name."""

from typing import Any, Literal

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from fourm_jax.models import layers
from fourm_jax.ops.attention import Backend, Visibility
from fourm_jax.utils import hardware, memory_views

DEPTHS = (
    "intermediates"  # collection of what every block gives: {"blocks": {"stream": ([l, b, n, d],)}}
)
LAYERS = "layers"  # of a stack after `cut_layers`, beside its blocks
Remat = Literal["none", "names", "dots", "full", "offload"]
_POLICIES = jax.checkpoint_policies


def _saves_names(primitive: jax.extend.core.Primitive, *args: Any, **params: Any) -> bool:
    """Keep what `layers.SAVED_NAMES` names, and output and log-sum-exp of cuDNN's attention."""
    if primitive.name.startswith("dot_product_attention_fwd"):
        return True
    return _POLICIES.save_only_these_names(*layers.SAVED_NAMES)(primitive, *args, **params)


REMAT_POLICIES = {
    "names": _saves_names,
    "dots": _POLICIES.dots_with_no_batch_dims_saveable,
    "full": _POLICIES.nothing_saveable,
    "offload": _POLICIES.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=list(layers.SAVED_NAMES),
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


class LayerMemory(flax.struct.PyTreeNode):
    """What cached decoding keeps of one decoder layer; keys and values have their heads first.

    Attributes:
      weights: parameters of the layer, cut from the stack and cast once: a single token costs less
        than cutting them would.
      cross_k, cross_v: of the encoder's context, computed once.
      self_k, self_v: of the target tokens so far, appended step by step. On a CPU samples and
        heads are one axis, as its products take them: what is cut and joined again is copied there
        four times per token.
    """

    weights: Any
    cross_k: Float[Array, "b h m k"]
    cross_v: Float[Array, "b h m k"]
    self_k: Float[Array, "*bh t k"]
    self_v: Float[Array, "*bh t k"]


class Block(nn.Module):
    """One pre-norm block: self-attention, cross-attention where `cross`, MLP.

    Source: docs/published.md#blocks.
    """

    num_heads: int
    mlp: layers.MlpKind
    mlp_dim: int
    cross: bool
    use_bias: layers.UseBias
    qk_norm: bool
    dtype: DTypeLike
    attention: Backend = "auto"
    cuts_stacked: bool = False  # see `layers.Mlp`

    def setup(self):
        norm: dict[str, Any] = {
            "use_bias": layers.has_bias(self.use_bias, "norm"),
            "dtype": self.dtype,
        }
        heads: dict[str, Any] = {
            "num_heads": self.num_heads,
            "qk_norm": self.qk_norm,
            "dtype": self.dtype,
        }
        heads |= {"use_bias": self.use_bias, "backend": self.attention}
        self.self_norm = layers.norm(**norm)
        self.self_attention = layers.Attention(**heads)
        if self.cross:
            self.query_norm = layers.norm(**norm)
            self.context_norm = layers.norm(**norm)
            self.cross_attention = layers.Attention(cross=True, **heads)
        self.mlp_norm = layers.norm(**norm)
        self.feed_forward = layers.Mlp(
            hidden_dim=self.mlp_dim, kind=self.mlp, dtype=self.dtype,
            use_bias=layers.has_bias(self.use_bias, "mlp"), cuts_stacked=self.cuts_stacked,
        )  # fmt: skip

    def __call__(
        self,
        x: Float[Array, "b n d"],
        drop_rate: Float[Array, ""] | None,
        context: Float[Array, "c m d"] | None,
        self_mask: Visibility | None,
        cross_mask: Visibility | None,
    ) -> tuple[Float[Array, "b n d"], None]:
        """Whole-set pass; arguments after `x` and `drop_rate` are the same for every layer."""
        x, ys = self.self_norm.fork(x, 3)  # queries, keys and values
        attended = self.self_attention(ys, mask=self_mask)
        x = checkpoint_name(layers.residual(self, x, attended, drop_rate), "stream")
        if self.cross:
            assert context is not None
            x, ys = self.query_norm.fork(x, 1)
            memory = self.context_norm.spread(context, 2)
            attended = self.cross_attention(ys, memory, cross_mask)
            x = checkpoint_name(layers.residual(self, x, attended, drop_rate), "stream")
        x, ys = self.mlp_norm.fork(x, 1 + layers.MLPS[self.mlp][1])
        x = layers.residual(self, x, self.feed_forward(ys), drop_rate)
        self.sow(DEPTHS, "stream", x)  # kept where somebody asks for the collection
        return x, None

    def remember(self, context: Float[Array, "b m d"]) -> tuple[Array, Array]:
        """Cross-attention keys and values of `context`, [b, h, m, k] each."""
        k, v = self.cross_attention.memory(self.context_norm(context))
        return jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)

    def step(
        self,
        x: Float[Array, "b t d"],
        memory: LayerMemory,
        index: Int[Array, ""],
        self_mask: Visibility,
        cross_mask: Visibility,
    ) -> tuple[Float[Array, "b t d"], LayerMemory]:
        """Cached pass over the t new tokens `x`, written at `index` of the memory.

        The masks may have fewer queries: rows beyond them repeat others (`layers.twice`).
        """
        num_new = self_mask.query_segment.shape[1]

        def append(kept: Array, new: Array) -> Array:
            new = jnp.swapaxes(new[:, :num_new], 1, 2)
            new = new.reshape(*kept.shape[:-2], *new.shape[2:])
            return jax.lax.dynamic_update_slice_in_dim(kept, new, index, axis=kept.ndim - 2)

        q, k, v = self.self_attention.queries_and_memory(self.self_norm(x))
        memory = memory.replace(self_k=append(memory.self_k, k), self_v=append(memory.self_v, v))
        k, v = (
            kept.reshape(len(x), self.num_heads, *kept.shape[-2:])
            for kept in (memory.self_k, memory.self_v)
        )
        x += self.self_attention.recall(q, k, v, self_mask)
        q = self.cross_attention.queries(self.query_norm(x))
        x += self.cross_attention.recall(q, memory.cross_k, memory.cross_v, cross_mask)
        return x + self.feed_forward(self.mlp_norm(x)), memory


class Stack(nn.Module):
    """`depth` blocks over stacked parameters, and the final norm.

    Attributes:
      drop_path: rate of the last block; earlier ones ramp up linearly from 0.
      remat: what the backward pass finds in memory. "none": all that it needs. "names": products
        and sums of branches (`layers.SAVED_NAMES`); norms, gates and softmax are computed again,
        where blocks run in a loop: without one the compiler may keep them, as "none" does.
        "dots": products of activations with weights. "full": the input of each block only.
        "offload": as "names", kept in the memory of the host.
      attention: backend, see `ops.attention.attend`.
      scan_unroll: blocks per loop iteration; 0: all of them, without a loop, which stacks what it
        saves for the backward pass.
    """

    depth: int
    num_heads: int
    mlp: layers.MlpKind
    mlp_dim: int
    cross: bool = False
    use_bias: layers.UseBias = False
    qk_norm: bool = False
    drop_path: float = 0.0
    remat: Remat = "none"
    scan_unroll: int = 1
    attention: Backend = "auto"
    dtype: DTypeLike = jnp.float32

    def setup(self):
        block, unroll, is_looped = Block, self._unroll, self._is_looped
        if self.remat != "none":
            # What is computed again stands in a loop of its own, or a compiler would find that it
            # was computed before, and keep that. Of "names" that is welcome: it is fast.
            block = nn.remat(
                block,
                policy=REMAT_POLICIES[self.remat],
                prevent_cse=not is_looped and self.remat != "names",
                methods=["__call__"],
            )
        everywhere = nn.broadcast
        scanned = nn.scan(
            block,
            variable_axes={"params": 0, DEPTHS: 0},
            split_rngs={"params": True, "drop_path": True},
            in_axes=(0, everywhere, everywhere, everywhere),
            length=self.depth,
            unroll=unroll,
        )
        if not self.is_initializing():
            # kernels are cast here, once per step, and not in every pass over every layer
            scanned = nn.map_variables(scanned, "params", self._cast_stacked)
        cuts_stacked = is_looped and self.remat == "names"
        self.blocks = scanned(**self._fields(), cuts_stacked=cuts_stacked)
        self.norm = layers.norm(use_bias=layers.has_bias(self.use_bias, "norm"), dtype=self.dtype)

    def __call__(
        self,
        x: Float[Array, "b n d"],
        context: Float[Array, "c m d"] | None = None,
        *,
        self_mask: Visibility | None = None,
        cross_mask: Visibility | None = None,
        train: bool = False,
    ) -> Float[Array, "b n d"]:
        """Run all blocks and the final norm; `train` switches stochastic depth on.

        Several rows may share a context: see `layers.Attention`.
        """
        rates = None
        if train and self.drop_path > 0:
            rates = jnp.linspace(0.0, self.drop_path, self.depth)
        if self._is_looped or not self.has_variable("params", LAYERS):
            x, _ = self.blocks(x, rates, context, self_mask, cross_mask)
            return self.norm(x)
        assert rates is None, "layers are cut for use, not for training"
        for weights in self._layers():
            result: Any = self._one_block().apply(
                {"params": weights}, x, None, context, self_mask, cross_mask
            )
            x, _ = result
        return self.norm(x)

    def remember(self, context: Float[Array, "b m d"], num_tokens: int) -> tuple[LayerMemory, ...]:
        """Memory of every layer: keys and values of `context`, and room for `num_tokens`."""
        memories = []
        for weights in self._layers():
            keys: Any = self._one_block().apply({"params": weights}, context, method="remember")
            k, v = keys
            batch, heads, _, channels = k.shape
            groups = (batch * heads,) if hardware.platform() == "cpu" else (batch, heads)
            empty = jnp.zeros((*groups, num_tokens, channels), k.dtype)
            memories.append(LayerMemory(layers.join_heads(weights), k, v, empty, empty))
        return tuple(memories)

    def step(
        self,
        x: Float[Array, "b t d"],
        memories: tuple[LayerMemory, ...],
        index: Int[Array, ""],
        *,
        self_mask: Visibility,
        cross_mask: Visibility,
    ) -> tuple[Float[Array, "b t d"], tuple[LayerMemory, ...]]:
        """Cached pass; returns (features [b, t, d], memory with the t tokens appended)."""
        num_new, appended = x.shape[1], []
        if len(x) * num_new == 1 and hardware.platform() == "gpu":
            x = layers.twice(x)
        for memory in memories:
            result: Any = self._one_block().apply(
                {"params": memory.weights}, x, memory, index, self_mask, cross_mask, method="step"
            )
            x, longer = result
            appended.append(longer)
        return self.norm(x)[:, :num_new], tuple(appended)

    def _layers(self) -> list[Any]:
        """Parameters of one layer after the other, cast."""
        params = self.variables["params"]
        if LAYERS in params:
            return [jax.tree.map(self._cast, layer) for layer in params[LAYERS]]
        return [
            jax.tree.map(lambda leaf, number=number: self._cast(leaf[number]), params["blocks"])
            for number in range(self.depth)
        ]

    @property
    def _unroll(self) -> int:
        return min(self.scan_unroll or self.depth, self.depth)

    @property
    def _is_looped(self) -> bool:
        return self._unroll < self.depth

    def _one_block(self) -> Block:
        """A block outside of the stack, to apply to weights of one layer."""
        return Block(**self._fields(), parent=None)

    def _cast_stacked(self, variables: Any) -> Any:
        """As `_cast`, of the layers together; [l, d] are scales and biases."""
        return jax.tree.map(lambda x: x.astype(self.dtype) if x.ndim > 2 else x, variables)

    def _cast(self, leaf: Array) -> Array:
        """Kernels in the dtype of the computation; scales and biases of norms stay as they are."""
        return leaf.astype(self.dtype) if leaf.ndim > 1 else leaf

    def _fields(self) -> dict[str, Any]:
        return {
            "num_heads": self.num_heads,
            "mlp": self.mlp,
            "mlp_dim": self.mlp_dim,
            "cross": self.cross,
            "use_bias": self.use_bias,
            "qk_norm": self.qk_norm,
            "attention": self.attention,
            "dtype": self.dtype,
        }


def cut_layers(params: Any) -> Any:
    """Parameters of a stack, with those of its layers one by one beside them.

    On a CPU every pass would copy the layers out of the stack; cut before, they lie where the stack
    has them (`memory_views.part`). Layers are for use: a stack that is trained has none.
    """
    blocks = params["blocks"]
    depth = len(jax.tree.leaves(blocks)[0])
    return {**params, LAYERS: tuple(_part(blocks, number) for number in range(depth))}


def first_layers(params: Any, depth: int) -> Any:
    """Parameters of a stack with the first `depth` blocks alone."""
    first = {**params, "blocks": _part(params["blocks"], slice(depth))}
    return first | ({LAYERS: params[LAYERS][:depth]} if LAYERS in params else {})


def _part(blocks: Any, index: int | slice) -> Any:
    return jax.tree.map(lambda leaf: memory_views.part(leaf, index), blocks)
