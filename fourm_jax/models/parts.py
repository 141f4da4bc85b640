"""Parameters by the name of what owns them: rows of packed tables are parts of their own.

A trunk packs the tokens, positions and modality vectors of all modalities into a few tables, whose
rows move when a modality is added. `split` names them by modality: "encoder_embedding/tokens" of
two modalities becomes "encoder_embedding/tokens/tok_rgb" and "encoder_embedding/tokens/text".
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fourm_jax.contracts import AnyArray
from fourm_jax.modalities.spec import ALIGNED_KINDS, ModalitySpec
from fourm_jax.models import tables
from fourm_jax.models.fourm import FourM
from fourm_jax.utils import tree

MODALITY = "modality_embedding"


@dataclasses.dataclass(frozen=True)
class Rows:
    """A slice of a packed table.

    Attributes:
      name: of what owns it: a modality, a shared token table, or a grid such as "8x8".
      offset, size: its rows.
    """

    name: str
    offset: int
    size: int


Packed = Mapping[str, tuple[Rows, ...]]  # path of a table -> its slices, in order


def packed_tables(model: FourM) -> Packed:
    """The packed tables of a trunk."""
    learned, specs = model.positions == "learned", model.modalities
    both = (*model.inputs, *model.outputs) if model.share_modality_embeddings else model.inputs
    names = [spec.name for spec in specs]
    found = {MODALITY: _rows(names, tables.modality_layout(specs, both))}
    if not model.share_modality_embeddings:
        layout = tables.modality_layout(specs, model.outputs)
        found[f"decoder_{MODALITY}"] = _rows(names, layout)
    for side, used in (("encoder", model.inputs), ("decoder", model.outputs)):
        tokens = _rows([spec.table for spec in specs], tables.token_layout(specs, used))
        found[f"{side}_embedding/tokens"] = tokens
        if side == "decoder" and not model.tie_heads:
            found["decoder_embedding/heads"] = tokens
        positions = tables.learned_position_layout(specs, used, learned=learned)
        place = f"{side}_embedding/positions"
        found[f"{place}/table"] = _rows([place_of(spec) for spec in specs], positions)
        found[f"{place}/codes"] = _rows(names, tables.code_layout(specs, used))
    return {path: rows for path, rows in found.items() if rows}


def under(packed: Packed, prefix: str) -> dict[str, tuple[Rows, ...]]:
    """The same tables of a model whose parameters stand below `prefix`."""
    return {f"{prefix}/{path}": rows for path, rows in packed.items()}


def split(params: Any, packed: Packed) -> dict[str, AnyArray]:
    """{name: part}; what is not packed is a part as it is."""
    parts = {}
    for path, leaf in tree.named_leaves(params).items():
        if path in packed:
            for rows in packed[path]:
                parts[f"{path}/{rows.name}"] = leaf[rows.offset : rows.offset + rows.size]
        else:
            parts[path] = leaf
    return parts


def _rows(names: Sequence[str], layout: tables.Layout) -> tuple[Rows, ...]:
    """The slices of a layout, named by the first entry that owns each."""
    owner = dict(zip(layout.groups[::-1], names[::-1], strict=True))
    slices = zip(layout.group_offsets, layout.group_sizes, strict=True)
    return tuple(Rows(owner[group], *rows) for group, rows in enumerate(slices))


def place_of(spec: ModalitySpec) -> str:
    """The name of learned positions: all pictures and grids of one shape share their positions."""
    return "x".join(map(str, spec.grid)) if spec.kind in ALIGNED_KINDS else spec.name
