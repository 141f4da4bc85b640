"""Where the time of a step goes: a profiler trace, summed up by kind of kernel."""

import collections
import gzip
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

from fourm_jax.parallel import gpu_kernels

Totals = dict[str, dict[str, float]]  # kind -> name of a kernel -> milliseconds


def record(function: Callable[[], Any], directory: pathlib.Path, *, calls: int) -> list[str]:
    """Trace calls of `function`; return lines: milliseconds per call by kind, and the top ones."""
    with jax.profiler.trace(directory):
        for _ in range(calls):
            jax.block_until_ready(function())
    totals: Totals = collections.defaultdict(lambda: collections.defaultdict(float))
    for path in directory.glob("**/*.trace.json.gz"):
        for name, milliseconds in kernels(json.loads(gzip.decompress(path.read_bytes()))):
            totals[gpu_kernels.kind(name)][name] += milliseconds / calls
    return list(_table(totals))


def kernels(trace: dict) -> Iterator[tuple[str, float]]:
    """Yield (name, milliseconds) of what ran on a device, or on XLA's threads on a CPU."""
    events = trace["traceEvents"]
    processes, threads = {}, {}
    for event in events:
        if event.get("name") == "process_name":
            processes[event["pid"]] = event["args"]["name"]
        elif event.get("name") == "thread_name":
            threads[event["pid"], event["tid"]] = event["args"]["name"]
    for event in events:
        if event.get("ph") != "X":
            continue
        process, thread = (
            processes.get(event["pid"], ""),
            threads.get((event["pid"], event["tid"]), ""),
        )
        is_stream = "/device:" in process and "Stream" in thread
        is_cpu_op = "/host:CPU" in process and "hlo_op" in event.get("args", {})
        is_tpu_op = "/device:TPU" in process and thread == "XLA Ops"
        if is_stream or is_cpu_op or is_tpu_op:
            yield event["name"], event.get("dur", 0) / 1e3


def _table(totals: Totals, top: int = 4) -> Iterator[str]:
    for label in sorted(totals, key=lambda label: -sum(totals[label].values())):
        yield f"{label}: {sum(totals[label].values()):.1f} ms"
        names = totals[label]
        for name in sorted(names, key=lambda name: -names[name])[:top]:
            yield f"    {names[name]:8.2f} ms  {name[:90]}"
