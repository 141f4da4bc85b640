"""Measure on one GPU what has no figure yet (docs/performance.md#measuring); prints a table.

    python -m experiments.measure_gpu --output=rows.jsonl --limit=560
    python -m experiments.measure_gpu --variants=base,xlarge --dry_run

Every variant is a process of `experiments.benchmark`. So many as --at_once says compile side by
side, and then measure one after the other on a card and cores that do nothing else; then come the
next ones. What has not ended after --limit seconds is stopped; rows that are there stay, and where
a variant gave none, the end of its log is printed.
"""

import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from experiments import cli
from fourm_jax.utils import errors

OUTPUT = cli.define_path("output", "rows.jsonl", "File that rows are added to.", written="file")
LIMIT = flags.DEFINE_integer("limit", 900, "Seconds in all.", lower_bound=1)
VARIANTS = cli.define_names("variants", [], "Some of the variants; default: all, in their order.")
AT_ONCE = flags.DEFINE_integer(
    "at_once",
    3,
    "Variants that compile side by side; twelve on 16 cores took five minutes.",
    lower_bound=1,
)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the commands, run none.")

COLUMNS = (
    *("kernels", "forward_ms", "both_ms"),
    *("ms_per_step", "samples_per_s", "mfu", "loop_samples_per_s", "loop_mfu"),
    *("loop_waiting_share", "seconds", "peak_gib", "compile_s", "out_of_memory"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """What one process measures.

    Attributes:
      suite, cases, changes, loop: flags of `experiments.benchmark`.
      environment: of its process, beside `ENVIRONMENT`.
    """

    suite: str
    cases: str
    changes: str = ""
    loop: bool = True
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


# Memory is taken as it is needed: processes that wait for their turn hold little.
ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
# A step that needs half of the card in one piece; this allocator gives it whatever is free.
_IN_PIECES = {"XLA_PYTHON_CLIENT_ALLOCATOR": "cuda_async"}


# Loops and branches as XLA runs them by itself (`fourm_jax.utils.hardware.compiler_options`).
_NOT_RECORDED = {"XLA_FLAGS": "--xla_gpu_enable_command_buffer=+CUDNN"}
_RECORDED = {"XLA_FLAGS": "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL"}


def _base(changes: str) -> Variant:
    return Variant(suite="train", cases="base_mod21", changes=changes, loop=False)


ALL = {
    "base": Variant(suite="train", cases="base_mod21"),
    "grids": Variant(
        suite="generate",
        cases="base_depth_maskgit8_b32,base_depth_maskgit8_b1,base_predict5_b1",
    ),
    "chain": Variant(suite="generate", cases="base_all_b1,base_all_b32,base_all_b4"),
    "kernels": Variant(
        suite="kernels", cases="base_attention,base_attention_ranks,base_norm,base_gate"
    ),
    "cudnn": _base("model.attention=cudnn"),
    "not_recorded": Variant(
        suite="train", cases="base_mod21", loop=False, environment=_NOT_RECORDED
    ),
    "dots": _base("model.remat=dots"),
    "full": _base("model.remat=full"),
    "offload": _base("model.remat=offload"),
    "chain_recorded": Variant(suite="generate", cases="base_all_b1", environment=_RECORDED),
    "large": Variant(suite="train", cases="large_mod21"),
    "base_512": _base("batch_size=512"),
    "xlarge": Variant(suite="train", cases="xlarge_mod21", environment=_IN_PIECES),
    "xlarge_loop": Variant(  # over blocks, as it was measured before
        suite="train",
        cases="xlarge_mod21",
        changes="model.scan_unroll=1",
        loop=False,
        environment=_IN_PIECES,
    ),
}


def command(variant: Variant, turns: str) -> list[str]:
    """The process of a variant."""
    flagged = {"suite": variant.suite, "cases": variant.cases, "turns": turns}
    flagged |= {"changes": variant.changes} if variant.changes else {}
    named = [f"--{name}={value}" for name, value in flagged.items()]
    named += [] if variant.loop else ["--noloop"]
    return [sys.executable, "-m", "experiments.benchmark", *named]


def rows(log: str) -> Iterator[dict[str, Any]]:
    """The rows of a benchmark among the other lines that it prints."""
    for line in log.splitlines():
        if line.startswith('{"suite"'):
            yield json.loads(line)


def table(measured: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """One line per row, with what it says of `COLUMNS`."""
    lines = []
    for name, found in measured.items():
        for row in found or [{}]:
            figures = (f"{key}={row[key]}" for key in COLUMNS if row.get(key) is not None)
            lines.append(f"{name:10} {row.get('case', 'no row'):26} {' '.join(figures)}")
    return lines


def main() -> None:
    """Start all, wait, print."""
    names = VARIANTS.value or list(ALL)
    for name in names:
        if name not in ALL:
            raise ValueError(errors.unknown_value("variant", name, ALL))
    with tempfile.TemporaryDirectory() as folder:
        turns = str(pathlib.Path(folder, "turns"))
        if DRY_RUN.value:
            for name in names:
                own = [f"{key}={value}" for key, value in _environment(ALL[name]).items()]
                print(" ".join(own), shlex.join(command(ALL[name], turns)))
            return
        measured = {}
        OUTPUT.value.parent.mkdir(parents=True, exist_ok=True)
        with pathlib.Path(OUTPUT.value).open("a", encoding="utf-8") as file:
            end = time.monotonic() + LIMIT.value
            for name, log in _logs(names, turns, pathlib.Path(folder), end):
                measured[name] = list(rows(log))
                file.writelines(
                    json.dumps(row | {"variant": name}) + "\n" for row in measured[name]
                )
                file.flush()
                if not measured[name]:
                    print(f"--- {name}:", *log.splitlines()[-15:], sep="\n", flush=True)
    print(*table(measured), sep="\n")


def _logs(
    names: Sequence[str], turns: str, folder: pathlib.Path, end: float
) -> Iterator[tuple[str, str]]:
    """Name and what was printed, of every process as it ends or when time is up."""
    for first in range(0, len(names), AT_ONCE.value):
        running = {
            name: _start(name, turns, folder) for name in names[first : first + AT_ONCE.value]
        }
        while running:
            time.sleep(1)
            is_late = time.monotonic() >= end
            for name, process in list(running.items()):
                status = process.poll()
                if status is None and not is_late:
                    continue
                how = f"ended with status {status}"
                if status is None:
                    process.kill()
                    process.wait()
                    how = f"was stopped after {LIMIT.value} s"
                print(f"{name} {how}", flush=True)
                del running[name]
                yield name, _log(name, folder).read_text(encoding="utf-8", errors="replace")
        if time.monotonic() >= end:
            return


def _start(name: str, turns: str, folder: pathlib.Path) -> subprocess.Popen[bytes]:
    with _log(name, folder).open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            command(ALL[name], turns),
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_environment(ALL[name])},
        )


def _log(name: str, folder: pathlib.Path) -> pathlib.Path:
    return folder / f"{name}.log"


def _environment(variant: Variant) -> dict[str, str]:
    return {**ENVIRONMENT, **variant.environment}


if __name__ == "__main__":
    cli.run(main)
