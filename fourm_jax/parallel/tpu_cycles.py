"""Cycles of a program compiled for a TPU, as its compiler expects them.

XLA says of every fusion and copy how many cycles it will take; here each counts as often as it
runs. Nothing overlaps. Kernels of Pallas have no figure and are counted alone.
"""

import collections
import re
from collections.abc import Iterator
from typing import Any

from fourm_jax.parallel import hlo

KERNELS = "kernels of Pallas"  # the kind of what has no figure
KINDS = (  # of the operations of the model; the first match wins
    ("attention", r"attend\b|recall\b"),
    ("products", r"dot_general|conv_general"),
    ("norms", r"norm"),
    ("lookups", r"gather|scatter|sort|take|embed"),
)
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")


def report(program: hlo.Program, open_rounds: int = 1) -> dict[str, dict[str, float]]:
    """Return {kind: {"runs", "mcycles"}}, the longest first, and their "sum".

    Of the branches of a conditional the one that takes longest counts.

    Args:
      open_rounds: rounds of every loop whose number of them only the device knows.
    """
    groups: dict[str, list[float]] = collections.defaultdict(lambda: [0, 0.0])
    for name, times, cycles in _operations(program, program.entry, 1, open_rounds):
        groups[name][0] += times
        groups[name][1] += times * cycles / 1e6
    ordered = dict(sorted(groups.items(), key=lambda item: -item[1][1]))
    ordered["sum"] = [sum(numbers) for numbers in zip(*groups.values(), strict=True)] or [0, 0.0]
    return {
        name: {"runs": int(runs), "mcycles": round(mcycles, 3)}
        for name, (runs, mcycles) in ordered.items()
    }


def kind(source: str) -> str:
    """Which of `KINDS` an operation of the model belongs to."""
    found = (label for label, pattern in KINDS if re.search(pattern, source))
    return next(found, "other")


def _operations(
    program: hlo.Program, computation: str, times: int, open_rounds: int
) -> Iterator[tuple[str, int, int]]:
    """Kind, runs and cycles of everything that has cycles of its own."""
    for one in program.computations.get(computation, []):
        if loop := program.loop(one):
            rounds = open_rounds if loop[1] is None else loop[1]
            yield from _operations(program, loop[0], times * rounds, open_rounds)
        elif one.opcode == "conditional":
            bodies = [list(_operations(program, name, times, open_rounds)) for name in one.branches]
            yield from max(bodies, key=lambda body: sum(runs * each for _, runs, each in body))
        elif one.opcode == "call" and (called := _CALLED.search(one.call)):
            yield from _operations(program, called[1], times, open_rounds)
        elif one.opcode == "custom-call" and "tpu_custom_call" in one.call:
            yield KERNELS, times, 0
        elif found := _CYCLES.search(one.call):
            yield kind(one.source), times, int(found[1])


def add(total: dict[str, Any], part: dict[str, dict[str, float]], calls: int) -> None:
    """Add the report of one program that is called so often."""
    for name, numbers in part.items():
        group = total.setdefault(name, {"runs": 0, "mcycles": 0.0})
        group["runs"] += calls * int(numbers["runs"])
        group["mcycles"] = round(group["mcycles"] + calls * numbers["mcycles"], 3)
