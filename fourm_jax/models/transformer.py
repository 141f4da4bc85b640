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
    """Keys and values of the decoder; a leading layer axis while outside the scan.

    Attributes:
      cross_k, cross_v: [(l,) b, m, h, k] of the encoder's context, computed once.
      self_k, self_v: [(l,) b, t, h, k] of the target tokens so far, appended step by step.
    """

    cross_k: Float[Array, "*l b m h k"]
    cross_v: Float[Array, "*l b m h k"]
    self_k: Float[Array, "*l b t h k"]
    self_v: Float[Array, "*l b t h k"]


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
            use_bias=layers.has_bias(self.use_bias, "mlp"),
        )  # fmt: skip

    def __call__(
        self,
        x: Float[Array, "b n d"],
        drop_rate: Float[Array, ""] | None,
        context: Float[Array, "b m d"] | None,
        self_mask: Visibility | None,
        cross_mask: Visibility | None,
    ) -> tuple[Float[Array, "b n d"], None]:
        """Whole-set pass; arguments after `x` and `drop_rate` are the same for every layer."""
        x, y = self.self_norm.fork(x)
        attended = self.self_attention(y, mask=self_mask)
        x = checkpoint_name(layers.residual(self, x, attended, drop_rate), "stream")
        if self.cross:
            assert context is not None
            x, y = self.query_norm.fork(x)
            attended = self.cross_attention(y, self.context_norm(context), cross_mask)
            x = checkpoint_name(layers.residual(self, x, attended, drop_rate), "stream")
        x, y = self.mlp_norm.fork(x)
        return layers.residual(self, x, self.feed_forward(y), drop_rate), None

    def remember(self, context):
        """Return `context` and its cross-attention keys and values."""
        return context, self.cross_attention.memory(self.context_norm(context))

    def step(
        self,
        x: Float[Array, "b t d"],
        memory: LayerMemory,
        index: Int[Array, ""],
        self_mask: Visibility,
        cross_mask: Visibility,
    ) -> tuple[Float[Array, "b t d"], LayerMemory]:
        """Cached pass over the t new tokens `x`, written at `index` of the memory."""
        q, k, v = self.self_attention.queries_and_memory(self.self_norm(x))
        memory = memory.replace(
            self_k=jax.lax.dynamic_update_slice_in_dim(memory.self_k, k, index, axis=1),
            self_v=jax.lax.dynamic_update_slice_in_dim(memory.self_v, v, index, axis=1),
        )
        x += self.self_attention.attend(q, memory.self_k, memory.self_v, self_mask)
        q = self.cross_attention.queries(self.query_norm(x))
        x += self.cross_attention.attend(q, memory.cross_k, memory.cross_v, cross_mask)
        return x + self.feed_forward(self.mlp_norm(x)), memory


class Stack(nn.Module):
    """`depth` blocks over stacked parameters, and the final norm.

    Attributes:
      drop_path: rate of the last block; earlier ones ramp up linearly from 0.
      remat: what the backward pass finds in memory. "none": all that it needs. "names": products
        and sums of branches (`layers.SAVED_NAMES`); norms, gates and softmax are computed again.
        "dots": products of activations with weights. "full": the input of each block only.
        "offload": as "names", kept in the memory of the host.
      attention: backend, see `ops.attention.attend`.
      scan_unroll: blocks per loop iteration; unrolling gains 15-20 % on narrow models on CPU.
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
        block = Block
        if self.remat != "none":
            block = nn.remat(
                block,
                policy=REMAT_POLICIES[self.remat],
                prevent_cse=False,
                methods=["__call__"],
            )
        everywhere = nn.broadcast
        methods: dict[str, Any] = {"__call__": {"in_axes": (0, everywhere, everywhere, everywhere)}}
        if self.cross:
            methods["remember"] = {"in_axes": ()}
            methods["step"] = {"in_axes": (0, everywhere, everywhere, everywhere)}
        common = {
            "variable_axes": {"params": 0},
            "split_rngs": {"params": True, "drop_path": True},
            "length": self.depth,
            "unroll": min(self.scan_unroll, self.depth),
        }
        self.blocks = nn.scan(block, methods={n: common | m for n, m in methods.items()})(
            num_heads=self.num_heads,
            mlp=self.mlp,
            mlp_dim=self.mlp_dim,
            cross=self.cross,
            use_bias=self.use_bias,
            qk_norm=self.qk_norm,
            attention=self.attention,
            dtype=self.dtype,
        )
        self.norm = layers.norm(use_bias=layers.has_bias(self.use_bias, "norm"), dtype=self.dtype)

    def __call__(
        self,
        x: Float[Array, "b n d"],
        context: Float[Array, "b m d"] | None = None,
        *,
        self_mask: Visibility | None = None,
        cross_mask: Visibility | None = None,
        train: bool = False,
    ) -> Float[Array, "b n d"]:
        """Run all blocks and the final norm; `train` switches stochastic depth on."""
        rates = None
        if train and self.drop_path > 0:
            rates = jnp.linspace(0.0, self.drop_path, self.depth)
        x, _ = self.blocks(x, rates, context, self_mask, cross_mask)
        return self.norm(x)

    def remember(self, context: Float[Array, "b m d"]) -> tuple[Array, Array]:
        """Cross-attention keys and values of every layer, [l, b, m, h, k] each."""
        return self.blocks.remember(context)[1]

    def step(
        self,
        x: Float[Array, "b t d"],
        memory: LayerMemory,
        index: Int[Array, ""],
        *,
        self_mask: Visibility,
        cross_mask: Visibility,
    ) -> tuple[Float[Array, "b t d"], LayerMemory]:
        """Cached pass; returns (features [b, t, d], memory with the t tokens appended)."""
        x, memory = self.blocks.step(x, memory, index, self_mask, cross_mask)
        return self.norm(x), memory
