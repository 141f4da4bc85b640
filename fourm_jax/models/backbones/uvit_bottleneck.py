"""The Transformer in the middle of a UViT: blocks whose norms and gates depend on the time."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from fourm_jax.contracts import AnyArray
from fourm_jax.models import layers
from fourm_jax.models.backbones import unet_parts, vit
from fourm_jax.ops import attention, posemb

Conditioning = Literal["concat", "xattn"]
CONDITIONINGS = ("concat", "xattn")
NORM_EPSILON = 1e-5
MLP_RATIO = 4


class CrossAttention(nn.Module):
    """Attention to a context of another width than the queries'."""

    num_heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        context: Float[Array, "b m c"],
        mask: attention.Visibility | None,
    ) -> Float[Array, "b n d"]:
        dim = x.shape[-1]
        heads = (self.num_heads, dim // self.num_heads)
        q = nn.Dense(dim, dtype=self.dtype, name="q")(x).reshape(*x.shape[:2], *heads)
        kv = nn.Dense(2 * dim, dtype=self.dtype, name="kv")(context)
        kv = kv.reshape(*context.shape[:2], 2, *heads)
        joined = attention.attend(q, kv[:, :, 0], kv[:, :, 1], mask).reshape(x.shape)
        return nn.Dense(dim, dtype=self.dtype, name="out")(joined)


class Block(nn.Module):
    """Self-attention, cross-attention where `cross`, MLP; adaLN-Zero (Peebles and Xie 2023).

    Every branch is x + gate(time) · branch(norm(x) · (1 + scale(time)) + shift(time)); gates start
    at 0. `skip` first joins x with the output of an earlier block.
    """

    num_heads: int
    cross: bool
    skip: bool
    dropout: float
    train: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        earlier: Float[Array, "b n d"] | None,
        time: Float[Array, "b t"],
        context: Float[Array, "b m c"] | None,
        context_mask: Bool[Array, "b m"] | None,
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b n d"]]:
        """Return the result twice, as a scan wants it; arguments after `earlier` are shared."""
        dim, branches = x.shape[-1], 2 + self.cross
        dense: dict[str, Any] = {"dtype": self.dtype}
        if self.skip:
            assert earlier is not None
            both = jnp.concatenate([x, earlier], axis=-1)
            x = nn.Dense(dim, **dense, name="skip")(both)
        activated = nn.silu(time)
        modulation = nn.Dense(2 * branches * dim, **dense, name="modulation")(activated)
        zeros = nn.initializers.zeros
        gates = nn.Dense(branches * dim, kernel_init=zeros, **dense, name="gates")(activated)
        shifts_and_scales = jnp.split(modulation[:, None], 2 * branches, axis=-1)
        gates = jnp.split(gates[:, None], branches, axis=-1)
        heads: dict[str, Any] = {"num_heads": self.num_heads, "use_bias": True, "dtype": self.dtype}

        def norm(name):
            return nn.LayerNorm(
                epsilon=NORM_EPSILON, use_fast_variance=False, dtype=self.dtype, name=name
            )

        def modulated(name, branch):
            shift, scale = shifts_and_scales[2 * branch : 2 * branch + 2]
            return norm(name)(x) * (1 + scale) + shift

        def drop(branch):
            return nn.Dropout(self.dropout, rng_collection="quantizer")(
                branch, deterministic=not self.train
            )

        attended = layers.Attention(**heads, name="self_attention")(modulated("self_norm", 0))
        x = x + gates[0] * drop(attended)
        if self.cross:
            seen = None if context_mask is None else attention.sees_valid(context_mask, x.shape[1])
            attended = CrossAttention(self.num_heads, self.dtype, name="cross_attention")(
                modulated("query_norm", 1), norm("context_norm")(context), seen
            )
            x = x + gates[1] * drop(attended)
        hidden = layers.Mlp(MLP_RATIO * dim, "gelu", True, self.dtype, name="feed_forward")(
            modulated("mlp_norm", branches - 1)
        )
        x = x + gates[-1] * drop(hidden)
        return x, x


class Bottleneck(nn.Module):
    """Feature map -> tokens, positions and condition -> blocks -> feature map; see `uvit.UViT`."""

    dim: int
    depth: int
    num_heads: int
    long_skip: bool
    conditioning: Conditioning
    dropout: float
    grid: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        time: Float[Array, "b t"],
        condition: Float[Array, "b y x l"],
        condition_mask: Bool[Array, "b y x"] | None,
        train: bool,
    ) -> Float[Array, "b h w c"]:
        """Return features of the shape of `x`."""
        if self.conditioning not in CONDITIONINGS:
            raise ValueError(f"conditioning {self.conditioning!r}, allowed: {CONDITIONINGS}")
        if self.long_skip and self.depth % 2 == 0:
            raise ValueError(f"long skips need an odd depth, got {self.depth}")
        batch, rows, columns, channels = x.shape
        tokens = nn.Dense(self.dim, dtype=self.dtype, name="tokens_in")(x)
        if self.conditioning == "concat":
            tokens += self._condition(condition, condition_mask, (rows, columns))
            context = mask = None
        else:
            context = condition.reshape(batch, -1, condition.shape[-1])
            mask = None if condition_mask is None else condition_mask.reshape(batch, -1)
        tokens += jnp.asarray(self._positions((rows, columns)), tokens.dtype)
        tokens = tokens.reshape(batch, rows * columns, self.dim)
        tokens = self._blocks(tokens, (time, context, mask), train)
        tokens = nn.Dense(channels, dtype=self.dtype, name="tokens_out")(tokens)
        return tokens.reshape(x.shape)

    def _condition(
        self,
        condition: Float[Array, "b y x l"],
        condition_mask: Bool[Array, "b y x"] | None,
        size: tuple[int, int],
    ) -> Float[Array, "b h w d"]:
        """Projected condition on the grid of the tokens; a learned vector where it is dropped."""
        dropped = self.param("dropped", nn.initializers.zeros, (self.dim,)).astype(self.dtype)
        condition = unet_parts.resize_nearest(condition, size)
        condition = nn.Dense(self.dim, dtype=self.dtype, name="condition_in")(condition)
        if condition_mask is None:
            return condition
        used = unet_parts.resize_nearest(condition_mask, size)
        return jnp.where(used[..., None], condition, dropped)

    def _positions(self, size: tuple[int, int]) -> Float[AnyArray, "y x d"]:
        """Sin-cos table, resized: bicubic, but nearest with cross-attention (as published)."""
        nominal = (self.grid, self.grid)
        if self.conditioning == "concat":
            return vit.position_table(nominal, size, self.dim)
        table = posemb.sincos_2d(*nominal, self.dim).reshape(1, *nominal, self.dim)
        return unet_parts.resize_nearest(jnp.asarray(table), size)[0]

    def _blocks(
        self, x: Float[Array, "b n d"], shared: tuple[Array | None, ...], train: bool
    ) -> Float[Array, "b n d"]:
        if not self.long_skip:
            return self._scan(self.depth, False, train, "blocks")(x, None, *shared)[0]
        half = self.depth // 2
        x, outputs = self._scan(half, False, train, "blocks_in")(x, None, *shared)
        x, _ = self._block(Block, False, train, "block_middle")(x, None, *shared)
        return self._scan(half, True, train, "blocks_out")(x, outputs[::-1], *shared)[0]

    def _scan(self, length: int, skip: bool, train: bool, name: str) -> nn.Module:
        scanned = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "quantizer": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=length,
        )
        return self._block(scanned, skip, train, name)

    def _block(self, kind: type[nn.Module], skip: bool, train: bool, name: str) -> nn.Module:
        return kind(
            num_heads=self.num_heads,
            cross=self.conditioning == "xattn",
            skip=skip,
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
            name=name,
        )
