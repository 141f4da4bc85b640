"""Kernels of a program compiled for a GPU: what each reads, writes and multiplies.

Counted from the text of its HLO, each kernel as often as it runs: what goes in is read once, what
comes out is written once. Of arrays that a kernel slices or looks up in, only those parts count.
A real kernel may read more than once, and never less, but for what stays in the cache.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

from fourm_jax.parallel import collectives, gpus, hlo

# First match wins. Names are those of XLA's kernels and of the libraries it calls.
KINDS = (
    ("collectives", r"nccl|all[-_]?reduce|all[-_]?gather|reduce[-_]?scatter|permute"),
    ("attention", r"flash|fmha|sdpa|mha_|attention|dot_do_o|convert_dq"),
    ("products", r"gemm|cublas|cutlass|nvjet|\bdot|dot_general|convolution|xmma|splitKreduce"),
    ("zero-filling", r"memset|broadcast|fill"),
    ("copies", r"memcpy|copy|slice|transpose|concatenate"),
    ("reductions and norms", r"reduce|softmax|norm"),
    ("lookups", r"gather|scatter|sort|topk"),
    ("element-wise", r"gate|fusion|loop|wrapped|select|convert|multiply|add"),
)
HOST = "host memory"  # the kind of what brings arrays there or back
_ON_HOST = "S(5)"  # of a layout: in the memory of the host
# Instructions that are no work of the device.
_NO_WORK = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
_NO_WORK |= {"partition-id", "replica-id", "opt-barrier", "add-dependency", "async-update"}
_SLICES = {"slice", "dynamic-slice", "gather"}
# Of these every element comes from one element, so that parts of what comes out need parts.
_SAME_ELEMENTS = {"bitcast", "reshape", "convert", "transpose", "copy", "negate", "reverse"}
_UPDATES = {"dynamic-update-slice", "scatter"}
_CALLS = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
_TARGET = re.compile(r'custom_call_target="([^"]+)"')
_KERNEL = re.compile(r'\bname = "([^"]+)"')  # of a kernel of Pallas
_SCORES = re.compile(r'"intermediate_tensor_shape".*?"dimensions":\s*\[([^\]]*)\]')
_LEFT_CONTRACTED = re.compile(r'"lhs_contracting_dimensions":\s*\[([^\]]*)\]')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel, with all its runs in one call of the program.

    Attributes:
      name: of its instruction; of a kernel of ours or of a library also that name.
      kind: one of `KINDS`, `HOST`, or "other".
      count: how often it runs.
      num_bytes: read and written by all runs.
      flops: operations of its products, of all runs.
      source: the operation of the model that it comes from.
    """

    name: str
    kind: str
    count: int
    num_bytes: float
    flops: float
    source: str

    def seconds(self, gpu: gpus.Gpu) -> float:
        """The least that all runs take: at the bandwidth of the memory or the rate of products."""
        if self.kind == HOST:
            return self.num_bytes / gpu.host_bandwidth
        return max(self.num_bytes / gpu.bandwidth, self.flops / gpu.flops)


def kind(name: str) -> str:
    """Which of `KINDS` a kernel belongs to."""
    for label, pattern in KINDS:
        if re.search(pattern, name, re.IGNORECASE):
            return label
    return "other"


def read(program: hlo.Program, gpu: gpus.Gpu, open_rounds: int = 1) -> list[Kernel]:
    """Kernels in the order in which they first run; collectives are left out.

    Of the branches of a conditional the one that takes longest counts.

    Args:
      open_rounds: rounds of every loop whose number of them only the device knows.
    """
    return list(_kernels(program, program.entry, 1, gpu, open_rounds))


def num_open_loops(program: hlo.Program) -> int:
    """Loops whose number of rounds only the device knows."""
    loops = map(program.loop, (one for lines in program.computations.values() for one in lines))
    return sum(1 for loop in loops if loop is not None and loop[1] is None)


def num_answers(program: hlo.Program, open_rounds: int = 1) -> int:
    """Answers of the device that the host waits for in one call, where loops and branches are not
    recorded: which branch, and before and after every round of an open loop whether to go on."""

    def asked(computation: str) -> int:
        total = 0
        for one in program.computations.get(computation, []):
            if loop := program.loop(one):
                rounds = open_rounds if loop[1] is None else loop[1]
                total += rounds * asked(loop[0]) + (rounds + 1 if loop[1] is None else 0)
            elif one.opcode == "conditional":
                total += 1 + max(map(asked, one.branches))
            elif one.opcode in ("call", "async-start") and (called := _CALLS.search(one.call)):
                total += asked(called[1])
        return total

    return asked(program.entry)


def _kernels(
    program: hlo.Program, computation: str, times: int, gpu: gpus.Gpu, open_rounds: int
) -> Iterator[Kernel]:
    lines = program.computations.get(computation, [])
    types = {one.name: one.type for one in lines}
    for one in lines:
        if one.opcode in _NO_WORK or one.opcode.endswith("-done") or _is_collective(one):
            continue
        if loop := program.loop(one):
            rounds = open_rounds if loop[1] is None else loop[1]
            yield from _kernels(program, loop[0], times * rounds, gpu, open_rounds)
        elif one.opcode == "conditional":
            bodies = (_kernels(program, name, times, gpu, open_rounds) for name in one.branches)
            branches = list(map(list, bodies))
            yield from max(branches, key=lambda found: sum(k.seconds(gpu) for k in found))
        elif one.opcode in ("call", "async-start") and (called := _CALLS.search(one.call)):
            yield from _kernels(program, called[1], times, gpu, open_rounds)
        else:
            yield _kernel(program, one, types, times)


def _is_collective(one: hlo.Instruction) -> bool:
    return one.opcode.removesuffix("-start") in collectives.KINDS


def _kernel(
    program: hlo.Program, one: hlo.Instruction, types: dict[str, str], times: int
) -> Kernel:
    name, target = one.name, _TARGET.search(one.call)
    if target:
        own = _KERNEL.search(one.call)
        name = f"{own[1] if own else target[1]} {name}"
    called = _CALLS.search(one.call)
    if one.opcode in ("fusion", "fusion-start") and called:
        body = _Body(program, called[1])
        num_bytes, flops = body.num_bytes(), body.flops()
    else:
        num_bytes, flops = _own_bytes(one, types), _own_flops(one, types)
    on_host = _ON_HOST in one.type
    is_product = flops > 0 and kind(name) != "attention"  # whatever it is fused with and named for
    return Kernel(
        name=name,
        kind=HOST if on_host else "products" if is_product else kind(name),
        count=times,
        num_bytes=num_bytes * times / (2 if on_host else 1),  # one side is the memory of the host
        flops=flops * times,
        source=one.source,
    )


def _own_bytes(one: hlo.Instruction, types: dict[str, str]) -> float:
    """Bytes of an instruction that is a kernel of its own."""
    out = hlo.num_bytes(one.type)
    sizes = {name: hlo.num_bytes(types.get(name, "")) for name in one.operands}
    if one.opcode in _SLICES:
        return 2 * out + sum(list(sizes.values())[1:])
    if one.opcode == "dynamic-update-slice":
        return 2 * sizes[one.operands[1]]
    if one.opcode == "scatter":  # reads, adds and writes the places that are met
        return 3 * sizes[one.operands[-1]] + sizes[one.operands[1]]
    if one.opcode == "copy-start":  # (to, from, …)
        return 2 * sum(sizes.values())
    return out + sum(sizes.values())


def _own_flops(one: hlo.Instruction, types: dict[str, str]) -> float:
    """Operations of a product, of cuBLAS or of an attention of cuDNN; 0 of anything else."""
    if one.opcode == "dot":
        return _product(one, types, one.sizes("lhs_contracting_dims"))
    target = _TARGET.search(one.call)
    if target is None:
        return 0.0
    if (scores := _SCORES.search(one.call)) and "fmha" in target[1]:
        depth = hlo.shape(hlo.arrays(one.type)[0])[-1]
        products = 5 if "Backward" in target[1] else 2
        return 2.0 * products * depth * math.prod(_numbers(scores[1]))
    if contracted := _LEFT_CONTRACTED.search(one.call):
        return _product(one, types, _numbers(contracted[1]))
    return 0.0


def _product(one: hlo.Instruction, types: dict[str, str], contracted: list[int]) -> float:
    left = hlo.shape(hlo.arrays(types[one.operands[0]])[0])
    return 2.0 * hlo.num_elements(hlo.arrays(one.type)[0]) * math.prod(left[i] for i in contracted)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


class _Body:
    """What one fusion computes."""

    def __init__(self, program: hlo.Program, name: str):
        self._program = program
        self._lines = program.computations.get(name, [])
        self._by_name = {one.name: one for one in self._lines}
        self._types = {one.name: one.type for one in self._lines}
        self._users: dict[str, list[hlo.Instruction]] = {}
        for one in self._lines:
            for operand in dict.fromkeys(one.operands):
                self._users.setdefault(operand, []).append(one)
        root = next((one for one in self._lines if one.is_root), None)
        names = [] if root is None else root.operands if root.opcode == "tuple" else [root.name]
        self._outputs = [self._by_name[name] for name in names]
        self._updates = {one.name: self._updates_of(one) for one in self._outputs}
        self._in_place = {one.name for found in self._updates.values() for one in found}

    def num_bytes(self) -> float:
        """Bytes that are read and written."""
        inputs = [one for one in self._lines if one.opcode == "parameter"]
        read = sum(self.share(one) * hlo.num_bytes(one.type) for one in inputs)
        return read + sum(map(self._written, self._outputs))

    def flops(self) -> float:
        """Operations of the products."""
        total = 0.0
        for one in self._lines:
            if one.opcode == "fusion" and (called := _CALLS.search(one.call)):
                total += _Body(self._program, called[1]).flops()
            else:
                total += _own_flops(one, self._types)
        return total

    def share(self, one: hlo.Instruction) -> float:
        """The part of an array's elements that is read, between 0 and 1."""
        if one.name in self._updates and one.name not in self._in_place:
            return 1.0  # it comes out
        elements = max(hlo.num_elements(one.type), 1)
        needed = sum(self._needed(one, user) for user in self._users.get(one.name, []))
        return min(needed / elements, 1.0)

    def _needed(self, one: hlo.Instruction, user: hlo.Instruction) -> float:
        """Elements of an array that one instruction reads."""
        elements = hlo.num_elements(one.type)
        if user.opcode == "fusion":
            return self._needed_inside(one, user)
        if user.opcode in _SAME_ELEMENTS:
            return self.share(user) * elements
        if user.operands[0] == one.name and user.opcode in _SLICES:
            return self.share(user) * hlo.num_elements(user.type)
        if user.operands[0] == one.name and user.name in self._in_place:
            return 0.0  # what is there stays; what a scatter adds to counts as written
        return elements

    def _needed_inside(self, one: hlo.Instruction, user: hlo.Instruction) -> float:
        """Elements that a fusion within this one reads."""
        called = _CALLS.search(user.call)
        assert called is not None, user.call
        inner = _Body(self._program, called[1])
        places = tuple(f"parameter({i})" for i, n in enumerate(user.operands) if n == one.name)
        shares = [inner.share(line) for line in inner._lines if line.call.startswith(places)]
        return min(sum(shares), 1.0) * hlo.num_elements(one.type)

    def _updates_of(self, output: hlo.Instruction) -> list[hlo.Instruction]:
        """Updates in place that an output consists of; none where it is written as a whole."""
        found, one = [], output
        while one.operands and one.opcode in (*_SAME_ELEMENTS, *_UPDATES):
            found += [one] if one.opcode in _UPDATES else []
            one = self._by_name[one.operands[0]]
        return found if one.opcode == "parameter" else []

    def _written(self, output: hlo.Instruction) -> float:
        updates = self._updates[output.name]
        if not updates:
            return hlo.num_bytes(output.type)
        size = hlo.num_bytes(output.type) / max(hlo.num_elements(output.type), 1)
        return sum(size * self._num_updated(one) for one in updates)

    def _num_updated(self, one: hlo.Instruction) -> int:
        if one.opcode == "scatter":  # reads what is there and writes the sum
            return 2 * hlo.num_elements(self._types[one.operands[-1]])
        return hlo.num_elements(self._types[one.operands[1]])
