"""What a compiled program sends between devices, read from the text of its HLO.

A line of HLO says what is sent once; how often it runs follows from the loops around it, whose
conditions compare a counter with a constant. What a loop of unknown length sends is counted once.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16}  # other types end in their number of bits
_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_ARRAY = re.compile(r"(?P<type>[a-z]\w*)\[(?P<sizes>[\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_BODY = re.compile(r"body=%?([\w.\-]+)")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_CHAIN = re.compile(r'chain_id="(\d+)"')
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')
_CONSTANT = re.compile(r"^s32\[\]\S* constant\((\d+)\)")


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


def read(hlo: str, num_devices: int) -> list[Collective]:
    """Collectives of the HLO of one program on `num_devices`, the largest first.

    A collective that runs beside other work is cut into pieces, which form one chain and count
    once. Channels do not tell collectives apart: all those of `jax.shard_map` have the same.
    """
    computations, entry = _split(hlo)
    counts = _counts(computations, entry)
    found: dict[tuple[str, str], Collective] = {}
    for name, lines in computations.items():
        scattered = "all-reduce-scatter" in name or "reduce-scatter" in name
        for own_name, rest in lines:
            one = _collective(rest, counts.get(name, 0), num_devices, scattered)
            if one is None or not one.count:
                continue
            chain = _CHAIN.search(rest)
            key = (one.kind, f"chain {chain[1]}" if chain else own_name)
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


def _split(hlo: str) -> tuple[dict[str, list[tuple[str, str]]], str]:
    """{computation: [(instruction, its text)]} and the name of the first computation to run."""
    computations: dict[str, list[tuple[str, str]]] = {}
    entry = name = ""
    for line in hlo.splitlines():
        if match := _COMPUTATION.match(line):
            name = match["name"]
            computations[name] = []
            entry = name if match["entry"] else entry
        elif name and (match := _INSTRUCTION.match(line)):
            computations[name].append((match["name"], match["rest"]))
    return computations, entry


def _counts(computations: dict[str, list[tuple[str, str]]], entry: str) -> dict[str, int]:
    """How often each computation runs in one call of the program."""
    counts: dict[str, int] = collections.Counter()

    def run(name: str, times: int) -> None:
        counts[name] += times
        for called, factor in _calls(computations, name):
            run(called, times * factor)

    run(entry, 1)
    return counts


def _calls(computations: dict[str, list[tuple[str, str]]], name: str) -> Iterator[tuple[str, int]]:
    """Computations that one calls, and how often."""
    for _, rest in computations.get(name, ()):
        for called in _CALLED.findall(rest):
            yield called, 1
        for branches in _BRANCHES.findall(rest):
            for called in branches.split(","):
                yield called.strip().lstrip("%"), 1
        body, condition = _BODY.search(rest), _CONDITION.search(rest)
        if body and condition:
            trips = _TRIPS.search(rest)
            yield body[1], int(trips[1]) if trips else _trips(computations.get(condition[1], []))


def _trips(condition: list[tuple[str, str]]) -> int:
    """Trips of a loop whose condition is counter < constant; 1 where it is something else."""
    constants = {name: int(m[1]) for name, rest in condition if (m := _CONSTANT.match(rest))}
    for _, rest in condition:
        if "direction=LT" in rest:
            limits = [limit for name, limit in constants.items() if f"%{name})" in rest]
            return max([*limits, 1])
    return 1


def _collective(rest: str, count: int, num_devices: int, scattered: bool) -> Collective | None:
    """The collective of one instruction, None for any other."""
    type_text, opcode = _type_and_opcode(rest)
    kind = opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    arrays = [match[0] for match in _ARRAY.finditer(type_text)]
    if opcode.endswith("-start") and kind in ("all-gather", "collective-permute"):
        arrays = arrays[1:2]  # (what goes in, what comes out, …)
    size = _group_size(rest, num_devices)
    out = sum(map(_num_bytes, arrays))
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
    source = re.search(r'op_name="([^"]*)"', rest)
    return Collective(
        kind=kind,
        arrays=tuple(arrays),
        num_devices=size,
        count=count,
        wire_bytes=sent * count,
        source=source[1] if source else "",
    )


def _type_and_opcode(rest: str) -> tuple[str, str]:
    """Split "bf16[8]{0} all-gather(%x), …" into its type and "all-gather"."""
    depth = end = 0
    while rest.startswith("(") and (not end or depth):  # a tuple, whose types hold blanks
        depth += (rest[end] == "(") - (rest[end] == ")")
        end += 1
    type_end = rest.find(" ", end)
    return rest[:type_end], rest[type_end + 1 :].partition("(")[0]


def _group_size(rest: str, num_devices: int) -> int:
    """Number of devices that one collective joins, in any of the spellings of HLO."""
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(match[1].split(","))
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(match[1])
    return num_devices


def _num_bytes(array: str) -> float:
    """Bytes of an array, e.g. "bf16[2,3]" -> 12."""
    match = _ARRAY.match(array)
    assert match is not None, array
    sizes = [int(size) for size in match["sizes"].split(",") if size]
    digits = re.search(r"\d+", match["type"])
    bits = _BITS.get(match["type"]) or (int(digits[0]) if digits else 8)
    return math.prod(sizes) * bits / 8
