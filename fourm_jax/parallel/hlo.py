"""A compiled program, read from the text of its HLO: computations, instructions, loops, sizes."""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16}  # other types end in their number of bits
_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_ARRAY = re.compile(r"(?P<type>[a-z]\w*)\[(?P<sizes>[\d,]*)\]")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"(?:calls|to_apply|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TWO_BRANCHES = re.compile(r"(?:true|false)_computation=%?([\w.\-]+)")
_BODY = re.compile(r"body=%?([\w.\-]+)")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')
_CONSTANT = re.compile(r"^constant\((\d+)\)")
_SOURCE = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction:
    """One line of HLO.

    Attributes:
      name: without its percent sign.
      type: of what comes out, e.g. "bf16[8,4]{1,0}", or a tuple of such in brackets.
      opcode: e.g. "all-gather".
      call: opcode, operands and everything behind them.
      is_root: whether its computation returns it.
    """

    name: str
    type: str
    opcode: str
    call: str
    is_root: bool

    @functools.cached_property
    def operands(self) -> list[str]:
        """Names of what goes in."""
        return _OPERAND.findall(_in_brackets(self.call[len(self.opcode) :]))

    @property
    def source(self) -> str:
        """The operation of the model that it comes from, "" where that is not said."""
        found = _SOURCE.search(self.call)
        return found[1] if found else ""

    @property
    def branches(self) -> list[str]:
        """Computations of a conditional, of which one runs."""
        if found := _BRANCHES.search(self.call):
            return [name.strip().lstrip("%") for name in found[1].split(",")]
        return _TWO_BRANCHES.findall(self.call)

    def sizes(self, attribute: str) -> list[int]:
        """Numbers of an attribute, e.g. [1, 2] of "lhs_contracting_dims" for "…dims={1,2}"."""
        found = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.call)
        return [int(size) for size in found[1].split(",") if size] if found else []


Computation = list[Instruction]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """All computations by name, and the name of the first one to run."""

    computations: dict[str, Computation]
    entry: str

    def counts(self) -> dict[str, int]:
        """How often each computation runs in one call of the program."""
        counts: dict[str, int] = collections.Counter()

        def run(name: str, times: int) -> None:
            counts[name] += times
            for called, factor in self._calls(name):
                run(called, times * factor)

        run(self.entry, 1)
        return counts

    def _calls(self, name: str) -> Iterator[tuple[str, int]]:
        """Computations that one calls, and how often."""
        for one in self.computations.get(name, ()):
            for called in _CALLED.findall(one.call):
                yield called, 1
            if found := _BRANCHES.search(one.call):
                for called in found[1].split(","):
                    yield called.strip().lstrip("%"), 1
            if loop := self.loop(one):
                yield loop[0], loop[1] or 1

    def loop(self, one: Instruction) -> tuple[str, int | None] | None:
        """Body of a loop and its number of rounds, if that is known; None for anything else."""
        body, condition = _BODY.search(one.call), _CONDITION.search(one.call)
        if body is None or condition is None:
            return None
        found = _TRIPS.search(one.call)
        return body[1], int(found[1]) if found else self._trips(condition[1])

    def _trips(self, condition: str) -> int | None:
        """Rounds of a loop whose condition is counter < constant; None: something else."""
        lines = self.computations.get(condition, [])
        constants = {
            one.name: int(found[1])
            for one in lines
            if one.type.startswith("s32[]") and (found := _CONSTANT.match(one.call))
        }
        for one in lines:
            if "direction=LT" in one.call and one.operands[1:] and one.operands[1] in constants:
                return constants[one.operands[1]]
        return None


def parse(text: str) -> Program:
    """Read the text of one program."""
    computations: dict[str, Computation] = {}
    entry = name = ""
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            name = match["name"]
            computations[name] = []
            entry = name if match["entry"] else entry
        elif name and (match := _INSTRUCTION.match(line)):
            type_text, call = _split_type(match["rest"])
            computations[name].append(
                Instruction(
                    name=match["name"],
                    type=type_text,
                    opcode=call.partition("(")[0],
                    call=call,
                    is_root=match["root"] is not None,
                )
            )
    return Program(computations=computations, entry=entry)


def arrays(type_text: str) -> list[str]:
    """The arrays of a type, e.g. ["f32[8]", "s32[]"] of "(f32[8]{0}, s32[])"."""
    return [match[0] for match in _ARRAY.finditer(type_text)]


def shape(array: str) -> tuple[int, ...]:
    """The shape of an array, e.g. "bf16[2,3]" -> (2, 3)."""
    match = _ARRAY.match(array)
    assert match is not None, array
    return tuple(int(size) for size in match["sizes"].split(",") if size)


def num_elements(type_text: str) -> int:
    """Elements of all arrays of a type."""
    return sum(math.prod(shape(array)) for array in arrays(type_text))


def num_bytes(type_text: str) -> float:
    """Bytes of all arrays of a type, e.g. "bf16[2,3]" -> 12."""
    total = 0.0
    for match in _ARRAY.finditer(type_text):
        digits = re.search(r"\d+", match["type"])
        bits = _BITS.get(match["type"]) or (int(digits[0]) if digits else 8)
        total += math.prod(shape(match[0])) * bits / 8
    return total


def top_level(type_text: str) -> list[str]:
    """Parts of a tuple, e.g. ["(f32[8])", "f32[64]"] of "((f32[8]), f32[64])"."""
    parts, depth, start = [], 0, 1
    for at, letter in enumerate(type_text):
        depth += (letter in "([{") - (letter in ")]}")
        if (letter == "," and depth == 1) or (letter == ")" and depth == 0):
            parts.append(type_text[start:at].strip())
            start = at + 1
    return parts


def _split_type(rest: str) -> tuple[str, str]:
    """Split "bf16[8]{0} all-gather(%x), …" into its type and the rest."""
    end = len(_in_brackets(rest)) + 2 if rest.startswith("(") else 0
    type_end = rest.find(" ", end)
    return rest[:type_end], rest[type_end + 1 :]


def _in_brackets(text: str) -> str:
    """What stands between the first bracket, with which the text starts, and its partner."""
    depth = 0
    for match in re.finditer(r"[()]", text):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return text[1 : match.start()]
    return text[1:]
