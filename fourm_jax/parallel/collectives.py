"""What a compiled program sends between devices, read from its HLO.

A line of HLO says what is sent once; how often it runs follows from the loops around it, whose
conditions compare a counter with a constant. What a loop of unknown length sends is counted once.
"""

import dataclasses
import math
import re

from fourm_jax.parallel import hlo

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# that state, once started, what goes in beside what comes out
_WITH_INPUTS = ("all-gather", "reduce-scatter", "collective-permute")
_CHAIN = re.compile(r'chain_id="(\d+)"')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """One collective of a program, as each device takes part in it.

    Attributes:
      kind: one of `KINDS`.
      arrays: type and shape of what comes out.
      num_devices: that take part together.
      count: how often it runs in one call of the program.
      wire_bytes: that a device sends per call of the program, by the ring algorithms.
      source: the operation of the model that it comes from.
    """

    kind: str
    arrays: tuple[str, ...]
    num_devices: int
    count: int
    wire_bytes: float
    source: str


def read(program: hlo.Program, num_devices: int) -> list[Collective]:
    """Collectives of a program on `num_devices`, the largest first.

    A collective that runs beside other work is cut into pieces, which form one chain and count
    once. Channels do not tell collectives apart: all those of `jax.shard_map` have the same.
    """
    counts = program.counts()
    found: dict[tuple[str, str], Collective] = {}
    for name, instructions in program.computations.items():
        scattered = "all-reduce-scatter" in name or "reduce-scatter" in name
        for instruction in instructions:
            one = _collective(instruction, counts.get(name, 0), num_devices, scattered)
            if one is None or not one.count:
                continue
            chain = _CHAIN.search(instruction.call)
            key = (one.kind, f"chain {chain[1]}" if chain else instruction.name)
            if key not in found or found[key].count < one.count:
                found[key] = one
    return sorted(found.values(), key=lambda one: -one.wire_bytes)


def summary(collectives: list[Collective]) -> dict[str, dict[str, float]]:
    """Per kind: how many run in a call, and the bytes that a device sends."""
    total: dict[str, dict[str, float]] = {}
    for one in collectives:
        kind = total.setdefault(one.kind, {"count": 0, "wire_bytes": 0.0})
        kind["count"] += one.count
        kind["wire_bytes"] += one.wire_bytes
    return total


def _collective(
    instruction: hlo.Instruction, count: int, num_devices: int, scattered: bool
) -> Collective | None:
    """The collective of one instruction, None for any other."""
    kind = instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    type_text = instruction.type
    if instruction.opcode != kind and kind in _WITH_INPUTS:
        type_text = hlo.top_level(type_text)[1]  # (what goes in, what comes out, …)
    size = _group_size(instruction.call, num_devices)
    out = hlo.num_bytes(type_text)
    if kind == "all-reduce" and scattered:
        kind = "reduce-scatter"
        out /= size
    share = (size - 1) / size
    sent = {
        "all-gather": out * share,
        "all-reduce": 2 * out * share,
        "reduce-scatter": out * (size - 1),
        "all-to-all": out * share,
        "collective-permute": out,
    }[kind]
    return Collective(
        kind=kind,
        arrays=tuple(hlo.arrays(type_text)),
        num_devices=size,
        count=count,
        wire_bytes=sent * count,
        source=instruction.source,
    )


def _group_size(call: str, num_devices: int) -> int:
    """Number of devices that one collective joins, in any of the spellings of HLO."""
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", call):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", call):
        return len(match[1].split(","))
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", call):
        return int(match[1])
    return num_devices
