"""From (modality, position, id) tuples to vectors: gather first, embed second."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, UInt8

from fourm_jax.contracts import AnyArray, InputTokens, TargetTokens, TokenBatch
from fourm_jax.modalities.spec import RGB, ModalitySpec
from fourm_jax.models import layers, number_init, tables
from fourm_jax.parallel import lookup
from fourm_jax.utils import imagenet


class PositionEmbedding(nn.Module):
    """Vector of a token's position: sin-cos constants, or rows of a learned table.

    "global" modalities always learn their rows. With `learned` all do, starting from sin-cos
    values. Several codes per position share the vector of their cell and add a learned one of
    their own. Positions beyond the table take its last row; with `alias_overflow` (the published
    decoder) positions >= max_positions take row 0.
    """

    specs: tuple[ModalitySpec, ...]
    used: tuple[str, ...]
    dim: int
    learned: bool
    alias_overflow: bool
    std: float
    as_published: bool

    def setup(self):
        self.fixed_rows = tables.constant_position_layout(
            self.specs, self.used, learned=self.learned, as_published=self.as_published
        )
        self.learned_rows = tables.learned_position_layout(
            self.specs, self.used, learned=self.learned
        )
        self.code_rows = tables.code_layout(self.specs, self.used)
        if self.learned_rows.num_rows:
            self.table = self.param("table", self._init_learned)
        if self.code_rows.num_rows:
            shape = (self.code_rows.num_rows, self.dim)
            self.codes = self.param("codes", nn.initializers.normal(self.std), shape)

    def _init_learned(self, key: Key[Array, ""]) -> Float[Array, "rows d"]:
        values = tables.position_values(self.specs, self.learned_rows, self.dim)
        noise = nn.initializers.normal(self.std)(key, values.shape)
        is_global = np.zeros((len(values), 1), bool)
        for spec, offset, size in zip(
            self.specs, self.learned_rows.offsets, self.learned_rows.sizes, strict=True
        ):
            is_global[offset : offset + size] = spec.kind == "global"
        return jnp.where(is_global, noise, values)

    def __call__(
        self, modality: Int[Array, "b n"], position: Int[Array, "b n"]
    ) -> Float[Array, "b n d"]:
        """Look up float32 vectors; one gather over constant and learned rows together."""
        fixed, learned = self.fixed_rows, self.learned_rows
        table = jnp.asarray(tables.position_values(self.specs, fixed, self.dim, self.as_published))
        if learned.num_rows:
            table = jnp.concatenate([table, self.table])
        offsets = [
            o if size else fixed.num_rows + ol
            for o, size, ol in zip(fixed.offsets, fixed.sizes, learned.offsets, strict=True)
        ]
        codes = _per_modality([s.codes_per_position for s in self.specs], modality)
        cell = position // codes
        if self.alias_overflow:
            cell = jnp.where(
                cell >= _per_modality([s.max_positions for s in self.specs], modality), 0, cell
            )
        rows = [tables.position_rows(s, self.as_published) for s in self.specs]
        cell = jnp.clip(cell, 0, _per_modality(rows, modality) - 1)
        vectors = _rows(table, _per_modality(offsets, modality) + cell)
        if self.code_rows.num_rows:
            own = _rows(
                self.codes, _per_modality(self.code_rows.offsets, modality) + position % codes
            )
            vectors += jnp.where((codes > 1)[..., None], own, 0)
        return vectors


class InputEmbedding(nn.Module):
    """Content and position-plus-modality vectors of the visible tokens.

    Source: docs/published.md#embeddings.

    Attributes:
      token_std: of the initial token table and of the other learned vectors.
      token_scale: factor on looked-up tokens.
      smooth_numbers: see `number_init`.
    """

    specs: tuple[ModalitySpec, ...]
    used: tuple[str, ...]
    dim: int
    learned_positions: bool
    std: float
    token_std: float
    token_scale: float
    smooth_numbers: bool
    as_published: bool
    dtype: DTypeLike

    def setup(self):
        self.layout = tables.token_layout(self.specs, self.used)
        if self.layout.num_rows:
            shape = (self.layout.num_rows, self.dim)
            self.tokens = self.param("tokens", _token_init(self), shape)
        self.positions = PositionEmbedding(
            specs=self.specs,
            used=self.used,
            dim=self.dim,
            learned=self.learned_positions,
            alias_overflow=False,
            std=self.std,
            as_published=self.as_published,
        )
        self.contents = {
            spec.name: nn.Dense(
                self.dim,
                use_bias=spec.kind == "embedding",
                dtype=self.dtype,
                kernel_init=layers.XAVIER,
            )
            for spec in self.specs
            if spec.name in self.used and not spec.is_token
        }

    def __call__(
        self, batch: TokenBatch, modality_vectors: Float[Array, "b n d"]
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b n d"]]:
        """Return (content, position + modality vector); both 0 where a slot is not valid.

        Raises:
          ValueError: a pixels or embedding modality of this model without its array in the batch.
        """
        tokens = batch.inputs
        content = jnp.zeros((*tokens.id.shape, self.dim), self.dtype)
        if self.layout.num_rows:
            rows = table_rows(self.layout, tokens.modality, tokens.id)
            content = lookup.take_rows(self.tokens, rows, self.token_scale, self.dtype)
        for index, spec in enumerate(self.specs):
            if spec.name in self.contents:
                has_content = (tokens.modality == index)[..., None]
                projected = self._float_content(spec, batch, tokens)
                content = jnp.where(has_content, projected, content)
        position_vectors = self.positions(tokens.modality, tokens.position) + modality_vectors
        valid = tokens.valid[..., None]
        return jnp.where(valid, content, 0), jnp.where(valid, position_vectors, 0).astype(
            self.dtype
        )

    def _float_content(
        self, spec: ModalitySpec, batch: TokenBatch, tokens: InputTokens
    ) -> Float[Array, "b n d"]:
        """Projected patches by position, or vectors by id - 1 (id 0: a zero vector), [b, n, d]."""
        source = batch.pixels if spec.kind == "pixels" else batch.embeddings
        if spec.name not in source:
            raise ValueError(
                f"input modality {spec.name!r} ({spec.kind}) is missing from the batch, which "
                f"holds {sorted(source)}"
            )
        vectors = source[spec.name]
        if spec.kind == "pixels":
            vectors, index = patches(spec, normalize(vectors, spec.channel_names)), tokens.position
        else:  # the zero vector of a masked span is projected like any other: its bias counts
            vectors, index = jnp.pad(vectors, ((0, 0), (1, 0), (0, 0))), tokens.id
        vectors = vectors.astype(self.dtype)
        index = jnp.clip(index, 0, vectors.shape[1] - 1)[..., None]
        project = self.contents[spec.name]
        if vectors.shape[1] <= tokens.position.shape[1]:
            return jnp.take_along_axis(project(vectors), index, axis=1)
        return project(jnp.take_along_axis(vectors, index, axis=1))


def _token_init(module: "InputEmbedding | TargetEmbedding") -> nn.initializers.Initializer:
    if module.smooth_numbers:
        return number_init.smooth(module.specs, module.layout, module.token_std)
    return nn.initializers.normal(module.token_std)


class TargetEmbedding(nn.Module):
    """Queries of the tokens to predict, and the table of their output heads.

    Grid and global targets carry the shared mask token, sequence targets the previous token.
    """

    specs: tuple[ModalitySpec, ...]
    used: tuple[str, ...]
    dim: int
    tie_heads: bool
    learned_positions: bool
    std: float
    token_std: float
    token_scale: float
    smooth_numbers: bool
    as_published: bool
    dtype: DTypeLike

    def setup(self):
        self.layout = tables.token_layout(self.specs, self.used)
        if self.as_published and self.tie_heads:
            init = self._init_as_published
        else:
            init = _token_init(self)
        shape = (self.layout.num_rows, self.dim)
        self.tokens = self.param("tokens", init, shape)
        if not self.tie_heads:
            self.heads = self.param("heads", _token_init(self), shape)
        self.mask_token = self.param("mask_token", nn.initializers.normal(self.std), (self.dim,))
        self.positions = PositionEmbedding(
            specs=self.specs,
            used=self.used,
            dim=self.dim,
            learned=self.learned_positions,
            alias_overflow=self.as_published,
            std=self.std,
            as_published=self.as_published,
        )

    def _init_as_published(
        self, key: Key[Array, ""], shape: tuple[int, int], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "rows d"]:
        """Tied tables start Xavier-uniform per head: the head's init overwrites the table's."""
        bounds = np.concatenate(
            [np.full((size, 1), (6 / (size + self.dim)) ** 0.5) for size in self.layout.group_sizes]
        )
        return nn.initializers.uniform(2.0)(key, shape, dtype) * bounds - bounds

    def __call__(
        self, tokens: TargetTokens, modality_vectors: Float[Array, "b m d"]
    ) -> tuple[Float[Array, "b m d"], Float[Array, "b m d"]]:
        """Return (content, position + modality vector); both 0 where a slot is not valid."""
        rows = table_rows(self.layout, tokens.modality, tokens.input_id)
        previous = lookup.take_rows(self.tokens, rows, self.token_scale, self.dtype)
        is_sequence = _per_modality([s.kind == "sequence" for s in self.specs], tokens.modality)
        content = jnp.where(is_sequence[..., None], previous, self.mask_token)
        position_vectors = self.positions(tokens.modality, tokens.position) + modality_vectors
        valid = tokens.valid[..., None]
        return (
            jnp.where(valid, content, 0).astype(self.dtype),
            jnp.where(valid, position_vectors, 0).astype(self.dtype),
        )

    def head_table(self) -> Float[Array, "rows d"]:
        """Rows of all output heads, laid out as `tables.token_layout`."""
        return jnp.asarray(self.tokens if self.tie_heads else self.heads)


def modality_vectors(
    table: Float[Array, "rows d"], layout: tables.Layout, modality: Int[Array, "b n"]
) -> Float[Array, "b n d"]:
    """Vector of every token's modality, of those that own one; an arbitrary one for the others."""
    return _rows(table, table_rows(layout, modality, jnp.zeros_like(modality)))


def table_rows(
    layout: tables.Layout, modality: Int[Array, "b n"], ids: Int[Array, "b n"]
) -> Int[Array, "b n"]:
    """Row of each token in a packed table; an arbitrary one where its modality owns none."""
    last = jnp.maximum(_per_modality(layout.sizes, modality) - 1, 0)
    return _per_modality(layout.offsets, modality) + jnp.clip(ids, 0, last)


def normalize(
    pixels: UInt8[AnyArray, "b h w c"] | Float[AnyArray, "b h w c"], channels: Sequence[str]
) -> Float[Array, "b h w c"]:
    """uint8 pixels to float32: colours with mean and std of ImageNet, others to [-1, 1].

    So a colour means the same whatever stands beside it. Float pixels pass: they are taken as
    already normalized.

    Args:
      channels: names, of which those of `spec.RGB` are colours; none: there are no colours.
    """
    pixels = jnp.asarray(pixels)
    if pixels.dtype != jnp.uint8:
        return pixels
    colours = dict(zip(RGB, zip(imagenet.MEAN, imagenet.STD, strict=True), strict=True))
    names = channels or pixels.shape[-1] * ("",)
    mean, std = jnp.array([colours.get(name, (0.5, 0.5)) for name in names]).T
    return (pixels.astype(jnp.float32) / 255 - mean) / std


def patches(spec: ModalitySpec, pixels: Float[Array, "b h w c"]) -> Float[Array, "b l e"]:
    """Cut into the spec's patches, row-major; inside a patch rows, then columns, then channels.

    Raises:
      ValueError: the image does not fit the spec's grid.
    """
    (rows, columns), size = spec.grid, spec.patch_size
    if pixels.shape[1:] != spec.image_shape:
        raise ValueError(
            f"modality {spec.name!r}: pixels {pixels.shape[1:]}, expected {spec.image_shape}"
        )
    tiles = pixels.reshape(-1, rows, size, columns, size, spec.num_channels)
    return tiles.transpose(0, 1, 3, 2, 4, 5).reshape(
        -1, rows * columns, size * size * spec.num_channels
    )


def _per_modality(values: Sequence, modality: Int[Array, "b n"]) -> Array:
    """Entry of `values` for each token's modality."""
    return jnp.take(jnp.asarray(values), modality, mode="clip")


def _rows(table: Float[Array, "rows d"], index: Int[Array, "b n"]) -> Float[Array, "b n d"]:
    return jnp.take(table, index, axis=0, mode="clip")
