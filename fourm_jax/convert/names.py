"""Published parameter names and shapes, one entry per tensor, next to where ours lie.

Linear weights are [out, in] there and [in, out] here; heads have axes of their own here; layers
are stacked here; token tables, positions and modality vectors are rows of packed tables here.
Every entry is exact both ways (transpose and reshape only).

Source: docs/published.md#checkpoints.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import layers, tables
from fourm_jax.models.fourm import FourM

Kind = Literal["parameter", "alias", "buffer"]
Path = tuple[str, ...]  # of our parameter
QKV = {"qkv": 3}  # projections of an attention, and how many each matrix packs
Q_AND_KV = {"q": 1, "kv": 2}
# our name inside a block: published name inside an encoder block, inside a decoder block
NORMS = {
    "self_norm": ("norm1", "norm1"),
    "query_norm": (None, "query_norm"),
    "context_norm": (None, "context_norm"),
    "mlp_norm": ("norm2", "norm2"),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One published tensor.

    Attributes:
      name, shape: as published.
      kind: "parameter"; "alias" of a parameter that another entry also names; "buffer" that must
        hold `value`.
      path: of our parameter.
      index: which part of it: layer number, or rows.
      transpose: a linear weight.
      value: what a buffer holds.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind = "parameter"
    path: Path = ()
    index: Any = ()
    transpose: bool = False
    value: Float[np.ndarray, "..."] | float | None = None

    def to_ours(self, published: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Our layout of a published tensor; `shape` is that of our part."""
        return (published.T if self.transpose else published).reshape(shape)

    def to_published(self, ours: np.ndarray) -> np.ndarray:
        """Published layout of our part."""
        if self.transpose:
            return ours.reshape(self.shape[::-1]).T
        return ours.reshape(self.shape)


def entries(model: FourM) -> Iterator[Entry]:
    """All published tensors of a model in the form of the published `FM` class."""
    dim = model.dim
    yield Entry("mask_token", (1, 1, dim), path=("decoder_embedding", "mask_token"))
    if model.num_registers:
        yield Entry("register_tokens", (1, model.num_registers, dim), path=("registers",))
    yield from _embeddings(model, "encoder")
    yield from _embeddings(model, "decoder")
    for side, depth in (("encoder", model.encoder_depth), ("decoder", model.decoder_depth)):
        for layer in range(depth):
            yield from _block(model, side, layer)
        yield from _norm(model, f"{side}_norm", (side, "norm"), (), dim)
    yield Entry(
        "decoder_proj_context.weight", (dim, dim), path=("context", "kernel"), transpose=True
    )
    yield Entry("decoder_proj_context.bias", (dim,), path=("context", "bias"))


def _norm(model: FourM, name: str, path: Path, index: Any, dim: int) -> Iterator[Entry]:
    """Norms without bias keep a buffer of zeros under its name."""
    yield Entry(f"{name}.weight", (dim,), path=(*path, "scale"), index=index)
    if layers.has_bias(model.use_bias, "norm"):
        yield Entry(f"{name}.bias", (dim,), path=(*path, "bias"), index=index)
    else:
        yield Entry(f"{name}.bias", (dim,), kind="buffer", value=0.0)


def _block(model: FourM, side: str, layer: int) -> Iterator[Entry]:
    name, path, cross = f"{side}.{layer}", (side, "blocks"), side == "decoder"
    for ours, (in_encoder, in_decoder) in NORMS.items():
        published = in_decoder if cross else in_encoder
        if published:
            yield from _norm(model, f"{name}.{published}", (*path, ours), layer, model.dim)
    own, other = (*path, "self_attention"), (*path, "cross_attention")
    yield from _attention(model, f"{name}.{'self_attn' if cross else 'attn'}", own, layer, QKV)
    if cross:
        yield from _attention(model, f"{name}.cross_attn", other, layer, Q_AND_KV)
    dim, width = model.dim, model.mlp_dim or layers.hidden_dim(model.dim, model.mlp)
    mlp, biased = (*path, "feed_forward"), layers.has_bias(model.use_bias, "mlp")
    for part in ("fc1", "fc3") if layers.MLPS[model.mlp][1] else ("fc1",):
        yield from _linear(f"{name}.mlp.{part}", (*mlp, part), layer, width, dim, biased)
    yield from _linear(f"{name}.mlp.fc2", (*mlp, "fc2"), layer, dim, width, biased)


def _attention(
    model: FourM, name: str, path: Path, layer: int, projections: Mapping[str, int]
) -> Iterator[Entry]:
    """Projections (name, how many in one matrix), output and norms of one attention."""
    dim, biased = model.dim, layers.has_bias(model.use_bias, "qkv")
    for part, count in projections.items():
        yield from _linear(f"{name}.{part}", (*path, part), layer, count * dim, dim, biased)
    biased = layers.has_bias(model.use_bias, "proj")
    yield from _linear(f"{name}.proj", (*path, "out"), layer, dim, dim, biased)
    for norm in ("q_norm", "k_norm") if model.qk_norm else ():
        yield from _norm(model, f"{name}.{norm}", (*path, norm), layer, dim // model.num_heads)


def _linear(
    name: str, path: Path, index: Any, num_out: int, num_in: int, biased: bool
) -> Iterator[Entry]:
    yield Entry(
        f"{name}.weight", (num_out, num_in), path=(*path, "kernel"), index=index, transpose=True
    )
    if biased:
        yield Entry(f"{name}.bias", (num_out,), path=(*path, "bias"), index=index)


def _embeddings(model: FourM, side: str) -> Iterator[Entry]:
    used = model.inputs if side == "encoder" else model.outputs
    specs, dim, ours = model.modalities, model.dim, f"{side}_embedding"
    vectors, vectors_path = _modality_vectors(model, side)
    tokens = tables.token_layout(specs, used)
    learned = tables.learned_position_layout(specs, used, learned=False)
    fixed = tables.constant_position_layout(specs, used, learned=False, as_published=True)
    sincos = tables.position_values(specs, fixed, dim, as_published=True)
    shared = model.share_modality_embeddings
    for index, spec in enumerate(specs):
        if spec.name not in used:
            continue
        name = f"{side}_embeddings.{spec.name}"

        def rows(layout: tables.Layout, index: int = index) -> slice:
            return slice(layout.offsets[index], layout.offsets[index] + layout.sizes[index])

        alias = shared and side == "decoder" and spec.name in model.inputs
        kind: Kind = "alias" if alias else "parameter"
        yield Entry(f"{name}.mod_emb", (1, 1, dim), kind, vectors_path, rows(vectors))
        if learned.sizes[index]:
            where = rows(learned)
            shape, path = (1, learned.sizes[index], dim), (ours, "positions", "table")
            yield Entry(f"{name}.pos_emb", shape, path=path, index=where)
        else:
            value = sincos[rows(fixed)][None]
            yield Entry(f"{name}.pos_emb", value.shape, "buffer", value=value)
        yield from _content(model, side, spec, name, rows(tokens))


def _content(
    model: FourM, side: str, spec: ModalitySpec, name: str, rows: slice
) -> Iterator[Entry]:
    ours, dim = f"{side}_embedding", model.dim
    if spec.is_token:
        shape = (spec.vocab_size, dim)
        yield Entry(f"{name}.token_emb.weight", shape, path=(ours, "tokens"), index=rows)
        if side == "decoder":
            kind: Kind = "alias" if model.tie_heads else "parameter"
            table = "tokens" if model.tie_heads else "heads"
            yield Entry(f"{name}.to_logits.weight", shape, kind, (ours, table), rows)
        return
    path = (ours, f"contents_{spec.name}")
    if spec.kind == "pixels":
        shape = (dim, spec.patch_size**2 * spec.num_channels)
        yield Entry(f"{name}.proj.weight", shape, path=(*path, "kernel"), transpose=True)
    else:
        shape = (dim, spec.embedding_dim)
        yield Entry(f"{name}.emb_proj.weight", shape, path=(*path, "kernel"), transpose=True)
        yield Entry(f"{name}.emb_proj.bias", (dim,), path=(*path, "bias"))


def _modality_vectors(model: FourM, side: str) -> tuple[tables.Layout, tuple[str, ...]]:
    if model.share_modality_embeddings:
        both = (*model.inputs, *model.outputs)
        return tables.modality_layout(model.modalities, both), ("modality_embedding",)
    if side == "encoder":
        return tables.modality_layout(model.modalities, model.inputs), ("modality_embedding",)
    layout = tables.modality_layout(model.modalities, model.outputs)
    return layout, ("decoder_modality_embedding",)
