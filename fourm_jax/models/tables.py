"""Which rows of the packed tables each modality owns: tokens, positions, modality vectors.

One packed table per side and purpose lets any mixture of n tokens cost one lookup of n rows. Pure
Python over the specs; models, heads and checkpoint conversion all read the same layouts.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.ops import posemb

REFERENCE_SEQUENCE_POSITIONS = 512  # rows of every published 1-D table, whatever the length


@dataclasses.dataclass(frozen=True)
class Layout:
    """Slices of a packed table.

    Attributes:
      offsets, sizes: per modality index; size 0 = no rows in this table.
      groups: per modality index, which distinct slice it owns (-1: none).
      group_offsets, group_sizes: per distinct slice.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    groups: tuple[int, ...]
    group_offsets: tuple[int, ...]
    group_sizes: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        return sum(self.group_sizes)


def pack(slices: Sequence[tuple[str, int] | None]) -> Layout:
    """Pack named slices one after the other; equal names share their rows, None owns none.

    >>> pack([("text", 5), None, ("rgb", 3), ("text", 5)]).offsets
    (0, 0, 5, 0)

    Raises:
      ValueError: one name with two different sizes.
    """
    known: dict[str, tuple[int, int, int]] = {}  # name -> (group, offset, size)
    for name, size in filter(None, slices):
        if name in known and known[name][2] != size:
            raise ValueError(
                f"table {name!r} is shared by modalities with {known[name][2]} and {size} rows; "
                "modalities that share a table need the same vocabulary size"
            )
        offset = sum(entry[2] for entry in known.values())
        known.setdefault(name, (len(known), offset, size))
    rows = [known[entry[0]] if entry else (-1, 0, 0) for entry in slices]
    return Layout(
        offsets=tuple(row[1] for row in rows),
        sizes=tuple(row[2] for row in rows),
        groups=tuple(row[0] for row in rows),
        group_offsets=tuple(row[1] for row in known.values()),
        group_sizes=tuple(row[2] for row in known.values()),
    )


def token_layout(specs: Sequence[ModalitySpec], used: Sequence[str]) -> Layout:
    """Rows of the token table for the token modalities in `used`, shared by `spec.table`."""
    return pack([(s.table, s.vocab_size) if s.is_token and s.name in used else None for s in specs])


def modality_layout(specs: Sequence[ModalitySpec], used: Sequence[str]) -> Layout:
    """One row per modality in `used`."""
    return pack([(s.name, 1) if s.name in used else None for s in specs])


def code_layout(specs: Sequence[ModalitySpec], used: Sequence[str]) -> Layout:
    """Rows that tell several codes of one position apart; none for ordinary modalities."""
    codes = [s.codes_per_position if s.name in used else 1 for s in specs]
    return pack([(s.name, n) if n > 1 else None for s, n in zip(specs, codes, strict=True)])


def position_rows(spec: ModalitySpec, as_published: bool) -> int:
    """Usable rows of one modality's position table; later positions are clamped to the last."""
    if as_published and spec.kind in ("sequence", "embedding"):
        return REFERENCE_SEQUENCE_POSITIONS
    return spec.max_positions


def constant_position_layout(
    specs: Sequence[ModalitySpec], used: Sequence[str], *, learned: bool, as_published: bool
) -> Layout:
    """Rows of the sin-cos table: one slice per grid shape and one for everything 1-D."""
    owners = [s if s.name in used and s.kind != "global" and not learned else None for s in specs]
    lengths = [position_rows(s, as_published) for s in owners if s and not _is_grid(s)]
    longest = max(lengths, default=0)
    return pack([_geometry(s, longest) if s else None for s in owners])


def learned_position_layout(
    specs: Sequence[ModalitySpec], used: Sequence[str], *, learned: bool
) -> Layout:
    """Rows of the learned position table: "global" modalities, or all of them.

    All grids of one shape share their rows, so that what is learned about a place in one modality
    holds in the others; sequences and globals own theirs.
    """

    def rows(spec: ModalitySpec) -> tuple[str, int] | None:
        if spec.name not in used or not (learned or spec.kind == "global"):
            return None
        return _geometry(spec, 0) if _is_grid(spec) else (spec.name, spec.max_positions)

    return pack([rows(spec) for spec in specs])


def position_values(
    specs: Sequence[ModalitySpec], layout: Layout, dim: int, as_published: bool = False
) -> Float[np.ndarray, "rows d"]:
    """Sin-cos values for all rows of a position layout: 2-D for grids, 1-D for the rest."""
    values = np.zeros((layout.num_rows, dim), np.float32)
    for spec, offset, size in zip(specs, layout.offsets, layout.sizes, strict=True):
        if size and _is_grid(spec):
            values[offset : offset + size] = posemb.sincos_2d(
                *spec.grid, dim, as_published=as_published
            )
        elif size:
            values[offset : offset + size] = posemb.sincos_1d(size, dim)
    return values


def _is_grid(spec: ModalitySpec) -> bool:
    return spec.kind in ("pixels", "grid")


def _geometry(spec: ModalitySpec, length: int) -> tuple[str, int]:
    """Name and rows of the slice that all modalities of this geometry share."""
    if _is_grid(spec):
        rows, columns = spec.grid
        return f"{rows}x{columns}", rows * columns
    return "line", length
