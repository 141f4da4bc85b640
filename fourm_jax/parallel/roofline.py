"""The least time that a step compiled for GPUs can take, by kind of kernel."""

from collections.abc import Iterable
from typing import Any

from fourm_jax.parallel import collectives, gpu_kernels, gpus, hlo


def report(
    program: hlo.Program,
    gpu: gpus.Gpu,
    sent: Iterable[collectives.Collective] = (),
    open_rounds: int = 1,
) -> dict[str, Any]:
    """What the kernels of a program and what it sends take at least.

    Each kernel is bound by the bytes that it reads and writes or by its products, at the rates of
    the data sheet; collectives by what a device sends over its links. Nothing overlaps, and no
    launch takes time.

    Args:
      sent: collectives of the program.
      open_rounds: rounds of every loop whose number of them only the device knows.

    Returns:
      "least_ms": {kind: {"kernels", "gb", "tflop", "ms"}}, the longest first, and "sum"; gb are
      those of the memory, for collectives those that are sent. "open_loops": how many loops
      had `open_rounds`. "largest_kernels": by bytes.
    """
    found = gpu_kernels.read(program, gpu, open_rounds)
    groups: dict[str, dict[str, float]] = {}
    for one in found:
        _add(groups, one.kind, one.count, one.num_bytes, one.flops, one.seconds(gpu))
    for each in sent:
        seconds = each.wire_bytes / gpu.link_bandwidth
        _add(groups, "collectives", each.count, each.wire_bytes, 0, seconds)
    ordered = dict(sorted(groups.items(), key=lambda item: -item[1]["ms"]))
    total = {key: sum(group[key] for group in groups.values()) for key in _EMPTY}
    return {
        "least_ms": {name: _rounded(group) for name, group in {**ordered, "sum": total}.items()},
        "open_loops": gpu_kernels.num_open_loops(program),
        "largest_kernels": [
            {
                "name": one.name,
                "kind": one.kind,
                "count": one.count,
                "gb": round(one.num_bytes / 1e9, 3),
                "tflop": round(one.flops / 1e12, 3),
                "source": one.source[-100:],
            }
            for one in sorted(found, key=lambda one: -one.num_bytes)[:10]
        ],
    }


_EMPTY = {"kernels": 0, "gb": 0.0, "tflop": 0.0, "ms": 0.0}


def _add(
    groups: dict[str, dict[str, float]],
    name: str,
    count: int,
    num_bytes: float,
    flops: float,
    seconds: float,
) -> None:
    group = groups.setdefault(name, dict(_EMPTY))
    group["kernels"] += count
    group["gb"] += num_bytes / 1e9
    group["tflop"] += flops / 1e12
    group["ms"] += 1e3 * seconds


def _rounded(group: dict[str, float]) -> dict[str, float]:
    return {key: value if key == "kernels" else round(value, 3) for key, value in group.items()}
