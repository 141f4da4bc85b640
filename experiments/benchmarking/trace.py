"""Where the time of a step goes: a profiler trace, summed up by kind of kernel."""

import collections
import gzip
import json
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax

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


Totals = dict[str, dict[str, float]]  # kind -> name of a kernel -> milliseconds


def record(function: Callable[[], Any], directory: pathlib.Path, *, calls: int) -> list[str]:
    """Trace calls of `function`; return lines: milliseconds per call by kind, and the top ones."""
    with jax.profiler.trace(directory):
        for _ in range(calls):
            jax.block_until_ready(function())
    totals: Totals = collections.defaultdict(lambda: collections.defaultdict(float))
    for path in directory.glob("**/*.trace.json.gz"):
        for name, milliseconds in kernels(json.loads(gzip.decompress(path.read_bytes()))):
            totals[kind(name)][name] += milliseconds / calls
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


def kind(name: str) -> str:
    """Which of `KINDS` a kernel belongs to."""
    for label, pattern in KINDS:
        if re.search(pattern, name, re.IGNORECASE):
            return label
    return "other"


def _table(totals: Totals, top: int = 4) -> Iterator[str]:
    for label in sorted(totals, key=lambda label: -sum(totals[label].values())):
        yield f"{label}: {sum(totals[label].values()):.1f} ms"
        names = totals[label]
        for name in sorted(names, key=lambda name: -names[name])[:top]:
            yield f"    {names[name]:8.2f} ms  {name[:90]}"
