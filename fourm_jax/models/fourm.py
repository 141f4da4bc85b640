"""FourM: one encoder-decoder Transformer from any visible tokens to any target tokens."""

import dataclasses
from typing import Any, Literal, TypeVar

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from fourm_jax.contracts import InputTokens, TargetTokens, TokenBatch
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import embeddings, layers, tables, transformer
from fourm_jax.ops import attention, grouped
from fourm_jax.parallel import sharding
from fourm_jax.utils import errors

Slots = TypeVar("Slots", InputTokens, TargetTokens)


@flax.struct.dataclass
class Encoded:
    """What the decoder attends to: s slots, registers first, then the inputs, then empty ones that
    attention asks for (`attention.whole`).

    Attributes:
      context: projected encoder output with input position and modality vectors added again.
      valid: which slots exist; registers always do.
      hidden: encoder output after the final norm.
      packed: as of `contracts.InputTokens`.
    """

    context: Float[Array, "b s d"]
    valid: Bool[Array, "b s"]
    hidden: Float[Array, "b s d"]
    packed: bool = flax.struct.field(pytree_node=False, default=False)


@flax.struct.dataclass
class TokenLosses:
    """Cross-entropy of the target slots.

    Attributes:
      total: sum of the losses times their weights; the only one that has a gradient.
      loss: of every slot, float32; 0 where not valid.
      correct: whether the best id is the right one; False where not valid.
    """

    total: Float[Array, ""]
    loss: Float[Array, "b m"]
    correct: Bool[Array, "b m"]


@flax.struct.dataclass
class DecoderCache:
    """What cached decoding keeps between steps, for up to t target tokens.

    Attributes:
      layers: weights, keys and values of every decoder layer.
      valid: which of the s encoder slots exist.
      segment, order: of the target tokens so far; segment -1 = empty or not valid.
      length: number of slots written so far, the same for all samples.
    """

    layers: tuple[transformer.LayerMemory, ...]
    valid: Bool[Array, "b s"]
    segment: Int[Array, "b t"]
    order: Int[Array, "b t"]
    length: Int[Array, ""]


class FourM(nn.Module):
    """The trunk with embeddings and output heads (docs/published.md#trunk).

    Attributes:
      modalities: all modalities; the index in this tuple is the `modality` of a TokenBatch.
      inputs, outputs: names of those that can be seen and predicted.
      mlp: key of `layers.MLPS`.
      mlp_dim: 0 = published rule, 4D and, with a gate, int(8D/3).
      use_bias: biases in projections, MLPs and norms, or the names of those parts that have some
        (`layers.BIASED`); the context projection always has one.
      num_registers: learned tokens put before the input.
      tie_heads: output heads are the decoder's token table.
      share_modality_embeddings: one modality vector for encoder and decoder.
      separate_targets: a target sees targets of its own modality only.
      causal_targets: a target sees no target in a later slot, whatever its order.
      positions: "sincos" constants, or "learned" (starting from sin-cos); "global" modalities
        always learn theirs.
      smooth_numbers: numbers in texts start near to their neighbours (`number_init`).
      remat, scan_unroll, attention, drop_path: see `transformer.Stack`.
      dtype: of the computation; parameters, norm statistics, softmax and losses are float32.
      as_published: reproduce what published weights depend on: 512 rows in every 1-D position
        table, target positions >= max_positions become 0, 2-D positions of non-square grids divide
        by the number of rows, tokens enter at table scale, and the published initialization. By
        default positions are clamped to the last row, and tokens start at the scale of positions.
    """

    modalities: tuple[ModalitySpec, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dim: int
    encoder_depth: int
    decoder_depth: int
    num_heads: int
    mlp: layers.MlpKind = "swiglu"
    mlp_dim: int = 0
    use_bias: layers.UseBias = False
    qk_norm: bool = False
    num_registers: int = 0
    tie_heads: bool = True
    share_modality_embeddings: bool = True
    separate_targets: bool = True
    causal_targets: bool = False
    positions: Literal["sincos", "learned"] = "sincos"
    smooth_numbers: bool = False
    drop_path: float = 0.0
    remat: transformer.Remat = "none"
    scan_unroll: int = 1
    attention: transformer.Backend = "auto"
    dtype: DTypeLike = jnp.float32
    as_published: bool = False

    def setup(self):
        check(self)
        learned = self.positions == "learned"
        vectors: dict[str, Any] = {
            "specs": self.modalities,
            "dim": self.dim,
            "learned_positions": learned,
        }
        vectors |= initial_scales(self.dim, self.as_published)
        vectors |= {"as_published": self.as_published, "dtype": self.dtype}
        vectors |= {"smooth_numbers": self.smooth_numbers}
        init = nn.initializers.normal(vectors["std"])
        self.encoder_embedding = embeddings.InputEmbedding(used=self.inputs, **vectors)
        self.decoder_embedding = embeddings.TargetEmbedding(
            used=self.outputs, tie_heads=self.tie_heads, **vectors
        )
        both = (*self.inputs, *self.outputs) if self.share_modality_embeddings else self.inputs
        self.input_modalities = tables.modality_layout(self.modalities, both)
        shape = (self.input_modalities.num_rows, self.dim)
        self.modality_embedding = self.param("modality_embedding", init, shape)
        self.output_modalities = self.input_modalities
        if not self.share_modality_embeddings:
            self.output_modalities = tables.modality_layout(self.modalities, self.outputs)
            shape = (self.output_modalities.num_rows, self.dim)
            self.decoder_modality_embedding = self.param("decoder_modality_embedding", init, shape)
        if self.num_registers:
            self.registers = self.param("registers", init, (self.num_registers, self.dim))
        blocks: dict[str, Any] = {
            "num_heads": self.num_heads,
            "mlp": self.mlp,
            "mlp_dim": self.mlp_dim or layers.hidden_dim(self.dim, self.mlp),
            "use_bias": self.use_bias,
            "qk_norm": self.qk_norm,
            "drop_path": self.drop_path,
            "remat": self.remat,
            "scan_unroll": self.scan_unroll,
            "attention": self.attention,
            "dtype": self.dtype,
        }
        self.encoder = transformer.Stack(depth=self.encoder_depth, **blocks)
        self.decoder = transformer.Stack(depth=self.decoder_depth, cross=True, **blocks)
        self.context = nn.Dense(self.dim, dtype=self.dtype, kernel_init=layers.XAVIER)

    def __call__(self, tokens: TokenBatch, train: bool = False) -> Float[Array, "b m d"]:
        """Decoder features of all target slots; those of invalid slots mean nothing."""
        return self.decode(self.encode(tokens, train), tokens.targets, train)

    def encode(self, tokens: TokenBatch, train: bool = False) -> Encoded:
        """Encode the visible tokens."""
        num_slots = attention.whole(self.num_registers + tokens.inputs.valid.shape[1])
        inputs = _filled(tokens.inputs, num_slots - self.num_registers)
        tokens = dataclasses.replace(tokens, inputs=inputs)
        content, position_vectors = self.embed_inputs(tokens)
        valid, packed = tokens.inputs.valid, tokens.inputs.packed
        if self.num_registers:
            batch = len(valid)
            registers = jnp.broadcast_to(self.registers, (batch, *self.registers.shape))
            content = jnp.concatenate([registers.astype(self.dtype), content], axis=1)
            position_vectors = jnp.pad(position_vectors, ((0, 0), (self.num_registers, 0), (0, 0)))
            valid = jnp.pad(valid, ((0, 0), (self.num_registers, 0)), constant_values=True)
        x = sharding.constrain(content + position_vectors, P(sharding.BATCH))
        mask = attention.sees_valid(
            valid,
            x.shape[1],
            packed=packed,
            padding_may_differ=True,  # a slot that holds something sees at least itself
        )
        hidden = self.encoder(x, self_mask=mask, train=train)
        return Encoded(self.context(hidden) + position_vectors, valid, hidden, packed)

    def decode(
        self, encoded: Encoded, targets: TargetTokens, train: bool = False
    ) -> Float[Array, "b m d"]:
        """Decode a whole set of targets at once; `targets.order` says which ones see each other.

        There may be several rows of targets per encoded sample, one after the other: they attend
        to the same keys and values, which are computed once, and do not see each other.
        """
        num_targets = targets.valid.shape[1]
        targets = _filled(targets, attention.whole(num_targets))
        content, position_vectors = self.embed_targets(targets)
        x = sharding.constrain(content + position_vectors, P(sharding.BATCH))
        segment, order = self.segment_and_order(targets)
        same_rank = targets.packed and not self.causal_targets
        features = self.decoder(
            x,
            encoded.context,
            self_mask=attention.Visibility(
                segment,
                jnp.where(targets.valid, segment, -1),
                None if same_rank else order,
                None if same_rank else order,
                targets.valid.sum(axis=1, dtype=jnp.int32) if same_rank else None,
                padding_may_differ=True,  # a target sees at least itself
            ),
            cross_mask=attention.sees_valid(
                encoded.valid, targets.id.size // len(encoded.valid), packed=encoded.packed
            ),
            train=train,
        )
        return features[:, :num_targets]

    def start_cache(self, encoded: Encoded, num_targets: int) -> DecoderCache:
        """Empty cache for `num_targets` target tokens; cross-attention memory is computed here."""
        batch = len(encoded.valid)
        return DecoderCache(
            layers=self.decoder.remember(encoded.context, num_targets),
            valid=encoded.valid,
            segment=jnp.full((batch, num_targets), -1, jnp.int32),
            order=jnp.zeros((batch, num_targets), jnp.int32),
            length=jnp.zeros((), jnp.int32),
        )

    def decode_step(
        self, targets: TargetTokens, cache: DecoderCache
    ) -> tuple[Float[Array, "b s d"], DecoderCache]:
        """Decode s more target tokens after those in the cache, which must have room for them.

        Equal to the last s rows of `decode` on all targets so far, if no earlier target may see a
        later one. Tokens that are not valid (finished samples) are never seen by later ones.
        """
        content, position_vectors = self.embed_targets(targets)
        segment, order = self.segment_and_order(targets)
        if self.causal_targets:
            order += cache.length

        def append(kept, new):
            new = new.astype(kept.dtype)
            return jax.lax.dynamic_update_slice_in_dim(kept, new, cache.length, axis=1)

        cache = dataclasses.replace(
            cache,
            segment=append(cache.segment, jnp.where(targets.valid, segment, -1)),
            order=append(cache.order, order),
        )
        features, layers = self.decoder.step(
            content + position_vectors,
            cache.layers,
            cache.length,
            self_mask=attention.Visibility(segment, cache.segment, order, cache.order),
            cross_mask=attention.sees_valid(cache.valid, content.shape[1]),
        )
        return features, dataclasses.replace(
            cache, layers=layers, length=cache.length + content.shape[1]
        )

    def logits(self, features: Float[Array, "*b d"], modality: str) -> Float[Array, "*b v"]:
        """Logits of one modality's head, float32.

        Raises:
          ValueError: `modality` is not an output of this model.
        """
        return head_logits(features, self.head(modality))

    def head(self, modality: str) -> Float[Array, "v d"]:
        """Rows of one modality's head, in the dtype of the computation.

        Raises:
          ValueError: `modality` is not an output of this model.
        """
        if modality not in self.outputs:
            raise ValueError(errors.unknown_value("output modality", modality, self.outputs))
        layout = self.decoder_embedding.layout
        index = [spec.name for spec in self.modalities].index(modality)
        start, size = layout.offsets[index], layout.sizes[index]
        return self.decoder_embedding.head_table()[start : start + size].astype(self.dtype)

    def token_losses(
        self,
        tokens: TokenBatch,
        train: bool = False,
        weights: Float[Array, "b m"] | None = None,
        z_loss: float = 0.0,
    ) -> TokenLosses:
        """Cross-entropy of every target slot under its own head, and its weighted sum.

        Args:
          weights: of the slots in `TokenLosses.total`; default: 1.
          z_loss: see `ops.grouped.grouped_cross_entropy`.
        """
        features = self(tokens, train)
        targets, layout = tokens.targets, self.decoder_embedding.layout
        group = jnp.take(jnp.asarray(layout.groups), targets.modality, mode="clip")
        if weights is None:
            weights = jnp.ones(targets.id.shape)
        found = grouped.grouped_cross_entropy(
            features.reshape(-1, self.dim),
            self.decoder_embedding.head_table(),
            group.ravel(),
            targets.id.ravel(),
            targets.valid.ravel(),
            weights.ravel(),
            offsets=layout.group_offsets,
            sizes=layout.group_sizes,
            z_loss=z_loss,
        )
        shape = targets.id.shape
        return TokenLosses(found.total, found.by_token.reshape(shape), found.correct.reshape(shape))

    def embed_inputs(self, tokens: TokenBatch) -> tuple[Array, Array]:
        """Content and position + modality vectors of the inputs, [b, n, d] each."""
        vectors = embeddings.modality_vectors(
            self.modality_embedding, self.input_modalities, tokens.inputs.modality
        )
        return self.encoder_embedding(tokens, vectors)

    def embed_targets(self, targets: TargetTokens) -> tuple[Array, Array]:
        """Content and position + modality vectors of the targets, [b, m, d] each."""
        table = self.modality_embedding
        if not self.share_modality_embeddings:
            table = self.decoder_modality_embedding
        vectors = embeddings.modality_vectors(table, self.output_modalities, targets.modality)
        return self.decoder_embedding(targets, vectors)

    def segment_and_order(self, targets: TargetTokens) -> tuple[Array, Array]:
        """Segment ids and ranks of the targets, which give their visibility (`ops.attention`)."""
        segment, order = targets.modality, targets.order
        if not self.separate_targets:
            segment = jnp.zeros_like(segment)
        if self.causal_targets:
            order = jnp.broadcast_to(jnp.arange(order.shape[1]), order.shape)
        return segment, order


def _filled(slots: Slots, num_slots: int) -> Slots:
    """The slots of every sample with empty ones behind them."""
    spare = ((0, 0), (0, num_slots - slots.valid.shape[1]))
    return jax.tree.map(lambda leaf: jnp.pad(leaf, spare), slots)


def head_logits(features: Float[Array, "*b d"], head: Float[Array, "v d"]) -> Float[Array, "*b v"]:
    """features · headᵀ with float32 sums."""
    return jnp.einsum(
        "...d,vd->...v", features.astype(head.dtype), head, preferred_element_type=jnp.float32
    )


def initial_scales(dim: int, as_published: bool) -> dict[str, Any]:
    """Initial standard deviations of vectors and tables, and the factor on looked-up tokens.

    From scratch, token vectors start at the scale of sin-cos positions (rms 0.7): beside those, the
    published N(0, 0.02) tokens need thousands of steps to matter. The table itself starts at
    1/sqrt(D), so that tied heads give logits of about unit variance; the factor sqrt(D) applies to
    what is looked up. Modality vectors and mask token start small: at 0.5 the first steps are slow.
    """
    if as_published:
        return {"std": 0.02, "token_std": 0.02, "token_scale": 1.0}
    return {"std": 0.02, "token_std": dim**-0.5, "token_scale": dim**0.5}


def check(model: FourM) -> None:
    """Check the settings of a model.

    Raises:
      ValueError: names the value and what is allowed.
    """
    names = [spec.name for spec in model.modalities]
    for name in (*model.inputs, *model.outputs):
        if name not in names:
            raise ValueError(errors.unknown_value("modality", name, names))
    errors.check_distinct("input", model.inputs)
    errors.check_distinct("output", model.outputs)
    for spec in model.modalities:
        if spec.name in model.outputs and not spec.is_token:
            raise ValueError(
                f"modality {spec.name!r} of kind {spec.kind!r} cannot be an output: no vocabulary"
            )
    allowed = {
        "mlp": tuple(layers.MLPS),
        "positions": ("sincos", "learned"),
        "remat": ("none", *transformer.REMAT_POLICIES),
        "attention": attention.BACKENDS,
        "as_published": (False, True),
    }
    for field, values in allowed.items():
        if getattr(model, field) not in values:
            raise ValueError(f"unknown {field} {getattr(model, field)!r}, allowed: {values}")
    for field in ("dim", "encoder_depth", "decoder_depth", "num_heads"):
        if getattr(model, field) < 1:
            raise ValueError(f"{field} {getattr(model, field)}, must be at least 1")
    if model.scan_unroll < 0:
        raise ValueError(f"scan_unroll {model.scan_unroll}, must be at least 0")
    if not 0 <= model.drop_path < 1:
        raise ValueError(f"drop_path {model.drop_path}, allowed: 0 <= x < 1")
    named = () if isinstance(model.use_bias, bool) else model.use_bias
    for part in named:
        if part not in layers.BIASED:
            raise ValueError(errors.unknown_value("part in use_bias", part, layers.BIASED))
    if model.dim % 4 or model.dim % model.num_heads:
        raise ValueError(
            f"dim {model.dim} must be divisible by 4 and by num_heads {model.num_heads}"
        )
    if model.as_published and model.positions == "learned":
        raise ValueError("as_published needs sin-cos positions; set positions to 'sincos'")
    if model.as_published and model.smooth_numbers:
        raise ValueError("as_published draws its own tables; set smooth_numbers to False")
