"""What a run holds, array by array: shape, layout on the mesh, bytes on every device."""

import dataclasses
import math

import jax
from clu import parameter_overview

from fourm_jax.train.state import TrainState
from fourm_jax.utils import tree

PARTS = ("params", "model_state", "opt_state", "ema_params", "metrics", "step")


@dataclasses.dataclass(frozen=True)
class Row:
    """One array; `Bytes` are those of one device."""

    Name: str
    Shape: tuple[int, ...]
    Dtype: str
    Size: int
    Spec: tuple[object, ...]
    Bytes: int


def rows(abstract: TrainState, part: str) -> list[Row]:
    """The arrays of one of `PARTS` of a state, or of its shapes, with shardings."""
    found = []
    for name, leaf in tree.named_leaves(getattr(abstract, part)).items():
        shard = leaf.sharding.shard_shape(leaf.shape)
        spec = tuple(leaf.sharding.spec)
        size = math.prod(leaf.shape)
        num_bytes = math.prod(shard) * leaf.dtype.itemsize
        found.append(Row(name, leaf.shape, str(leaf.dtype), size, spec, num_bytes))
    return found


def table(abstract: TrainState) -> str:
    """Every parameter, then the sums of all parts of the state."""
    lines = [parameter_overview.make_table(rows(abstract, "params")), ""]
    total = 0
    for part in PARTS:
        own = rows(abstract, part)
        num_bytes = sum(row.Bytes for row in own)
        elements = sum(row.Size for row in own)
        total += num_bytes
        if own:
            lines.append(f"{part:12} {elements:>16,} elements {num_bytes:>16,} bytes per device")
    num_devices = len(jax.tree.leaves(abstract)[0].sharding.device_set)
    lines.append(f"{'state':12} {'':25} {total:>16,} bytes per device, {num_devices} device(s)")
    return "\n".join(lines)
