"""The table of published sizes on slices of TPUs: fits or not, memory, bytes on the wire.

    python -m experiments.topology_table --output=experiments/results/topologies.jsonl

Appends one line per case and skips those that are there, so it can be stopped and called again.
Every case is the step of configs/fourm.py at the published global batch, with parameters cut along
the last axis of the slice and the batch along the others: a TPU scatters gradients along one axis
of its network, and sums them whole over several (docs/performance.md#on-tpus-before-one-is-rented).
One that does not fit is tried again with less memory, in the order of `SMALLER`, and each try is a
line; --first does not.
The most asked for come first; --cases=SUBSTRING,… picks some, e.g. --cases=xlarge/v5e:16x16.
"""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from etils import epath

from experiments import cli
from fourm_jax.utils import io, progress

SLICES = ("v5e:16x16", "v5e:8x8", "v5e:4x4", "v5p:4x4x4", "v6e:8x8", "v6e:16x16")
SIZES = ("xlarge", "base", "large")
MIXES = ("mod21", "mod7")
# Keys of the config that save memory, each set beside those before it.
SMALLER = ("model.remat=full", "optimizer.accumulate_steps=2", "optimizer.accumulate_steps=8")

OUTPUT = cli.define_path("output", None, "File of JSON lines.", required=True, written="file")
CASES = flags.DEFINE_list("cases", [], "Parts of the names MIX/SIZE/SLICE; default: all.")
FIRST = flags.DEFINE_bool("first", False, "Do not try again what does not fit.")


def main() -> None:
    """Compile what is missing, one process each: a compiler that runs out of memory ends alone."""
    names = [f"{mix}/{size}/{place}" for mix in MIXES for size in SIZES for place in SLICES]
    wanted = [n for n in names if not CASES.value or any(part in n for part in CASES.value)]
    path = epath.Path(OUTPUT.value)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for name in progress.track(wanted, label="table", unit="case"):
        changes: list[str] = []
        for more in (None, *(() if FIRST.value else SMALLER)):
            changes += [more] if more else []
            row = _find(rows, name, changes)
            if row is None:
                row = {"case": name, "changes": list(changes), **compile_case(name, changes)}
                rows.append(row)
                io.write_text(path, "".join(json.dumps(one) + "\n" for one in rows))
            if row["fits"]:
                break


def _find(
    rows: Sequence[dict[str, Any]], name: str, changes: Sequence[str]
) -> dict[str, Any] | None:
    return next((r for r in rows if (r["case"], r["changes"]) == (name, list(changes))), None)


def compile_case(name: str, changes: Sequence[str]) -> dict[str, Any]:
    """The report of one case, by the command that a user would call.

    Raises:
      ValueError: the command ended without a report; says with what.
    """
    mix, size, place = name.split("/")
    *others, last = map(int, place.partition(":")[2].split("x"))
    command = [sys.executable, "-m", "experiments.compile_topology", f"--topology={place}"]
    command += [f"--config=configs/fourm.py:mix={mix},size={size}", "--notwo_layers"]
    command += [f"--config.mesh.data={math.prod(others)}", f"--config.mesh.fsdp={last}"]
    command += [f"--config.{change}" for change in changes]
    done = subprocess.run(command, capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not found:
        said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise ValueError(f"{name}: {said[-1]}")
    return json.loads(found[-1])


if __name__ == "__main__":
    cli.run(main)
