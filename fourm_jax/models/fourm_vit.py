"""FourMViT: the encoder of a FourM alone, from one pixels modality to features.

Source: docs/published.md#encoder-only.
"""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from fourm_jax import contracts
from fourm_jax.contracts import AnyArray, InputTokens, TokenBatch
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import embeddings, layers, tables, transformer
from fourm_jax.models.fourm import FourM, initial_scales
from fourm_jax.utils import errors


class FourMViT(nn.Module):
    """Encode all patches of an image; parameters are a part of those of the FourM it comes from.

    Attributes:
      modality: a "pixels" modality.
      pool: "none" returns one feature per patch (row-major), "mean" their average.
      others: see `FourM`.
    """

    modality: ModalitySpec
    dim: int
    encoder_depth: int
    num_heads: int
    mlp: layers.MlpKind = "swiglu"
    mlp_dim: int = 0
    use_bias: layers.UseBias = False
    qk_norm: bool = False
    num_registers: int = 0
    positions: Literal["sincos", "learned"] = "sincos"
    pool: Literal["none", "mean"] = "none"
    drop_path: float = 0.0
    remat: transformer.Remat = "none"
    scan_unroll: int = 1
    dtype: DTypeLike = jnp.float32
    as_published: bool = False

    def setup(self):
        if self.modality.kind != "pixels":
            raise ValueError(f"modality {self.modality.name!r} is no pixels modality")
        if self.pool not in ("none", "mean"):
            raise ValueError(f"unknown pool {self.pool!r}, allowed: 'mean', 'none'")
        scales = initial_scales(self.dim, self.as_published)
        self.encoder_embedding = embeddings.InputEmbedding(
            specs=(self.modality,),
            used=(self.modality.name,),
            dim=self.dim,
            learned_positions=self.positions == "learned",
            smooth_numbers=False,
            as_published=self.as_published,
            dtype=self.dtype,
            **scales,
        )
        init = nn.initializers.normal(scales["std"])
        self.modality_embedding = self.param("modality_embedding", init, (1, self.dim))
        if self.num_registers:
            self.registers = self.param("registers", init, (self.num_registers, self.dim))
        self.encoder = transformer.Stack(
            depth=self.encoder_depth,
            num_heads=self.num_heads,
            mlp=self.mlp,
            mlp_dim=self.mlp_dim or layers.hidden_dim(self.dim, self.mlp),
            use_bias=self.use_bias,
            qk_norm=self.qk_norm,
            drop_path=self.drop_path,
            remat=self.remat,
            scan_unroll=self.scan_unroll,
            dtype=self.dtype,
        )

    def __call__(
        self,
        pixels: UInt8[AnyArray, "b h w c"] | Float[AnyArray, "b h w c"],
        train: bool = False,
    ) -> Float[Array, "b l d"] | Float[Array, "b d"]:
        """Features of images [b, h, w, c]: uint8, or floats that are already normalized."""
        shape = (len(pixels), self.modality.max_tokens)
        zeros = jnp.zeros(shape, jnp.int32)
        position = jnp.broadcast_to(jnp.arange(shape[1]), shape)
        tokens = TokenBatch(
            inputs=InputTokens(zeros, position, zeros, zeros == 0),
            targets=contracts.empty_targets(len(pixels)),
            pixels={self.modality.name: jnp.asarray(pixels)},
            embeddings={},
        )
        modality_vectors = jnp.broadcast_to(self.modality_embedding, (*shape, self.dim))
        content, position_vectors = self.encoder_embedding(tokens, modality_vectors)
        x = content + position_vectors
        if self.num_registers:
            registers = jnp.broadcast_to(self.registers, (len(x), *self.registers.shape))
            x = jnp.concatenate([registers.astype(x.dtype), x], axis=1)
        features = self.encoder(x, train=train)[:, self.num_registers :]
        return features.mean(axis=1) if self.pool == "mean" else features


def from_fourm(
    model: FourM, params: Mapping[str, Any], modality: str
) -> tuple[FourMViT, dict[str, Any]]:
    """Return the encoder of a trained model for one of its pixels inputs, and its parameters.

    Raises:
      ValueError: `modality` is no pixels input of the model, or positions are learned (their table
        is shared by all modalities).
    """
    by_name = {s.name: s for s in model.modalities if s.kind == "pixels" and s.name in model.inputs}
    if modality not in by_name:
        raise ValueError(errors.unknown_value("pixels modality", modality, by_name))
    if model.positions == "learned":
        raise ValueError("FourMViT takes its weights from models with positions='sincos' only")
    names = set(FourMViT.__dataclass_fields__) & set(FourM.__dataclass_fields__)
    fields = {name: getattr(model, name) for name in names - {"name", "parent"}}
    vectors = (*model.inputs, *model.outputs) if model.share_modality_embeddings else model.inputs
    layout = tables.modality_layout(model.modalities, vectors)
    row = layout.offsets[[spec.name for spec in model.modalities].index(modality)]
    content = f"contents_{modality}"
    chosen = {
        "encoder": params["encoder"],
        "encoder_embedding": {content: params["encoder_embedding"][content]},
        "modality_embedding": params["modality_embedding"][row : row + 1],
    }
    if model.num_registers:
        chosen["registers"] = params["registers"]
    return FourMViT(modality=by_name[modality], **fields), chosen
