"""The table of published sizes on slices of TPUs: fits or not, memory, bytes on the wire.

    python -m experiments.topology_table --output=experiments/results/topologies.jsonl

Appends one line per case and skips those that are there, so it can be stopped and called again.
Every case is the step of configs/fourm.py at the published global batch, but for a loop over the
blocks (`model.scan_unroll=1`), which compiles in a fraction of the time and needs the same memory
to within a few per cent. --cases=SUBSTRING,… picks some, e.g. --cases=xlarge/v5e:16x16.
"""

import json
import subprocess
import sys

from absl import flags
from etils import epath

from experiments import cli
from fourm_jax.utils import progress

SLICES = ("v5e:4x4", "v5e:8x8", "v5e:16x16", "v5p:4x4x4", "v6e:8x8", "v6e:16x16")
SIZES = ("base", "large", "xlarge")
MIXES = ("mod7", "mod21")

OUTPUT = cli.define_path("output", None, "File of JSON lines.", required=True, written="file")
CASES = flags.DEFINE_list("cases", [], "Parts of the names MIX/SIZE/SLICE; default: all.")


def main() -> None:
    """Compile what is missing, one process each: a compiler that runs out of memory ends alone."""
    names = [f"{mix}/{size}/{place}" for mix in MIXES for size in SIZES for place in SLICES]
    wanted = [n for n in names if not CASES.value or any(part in n for part in CASES.value)]
    path = epath.Path(OUTPUT.value)
    lines = path.read_text().splitlines() if path.exists() else []
    known = {json.loads(line)["case"] for line in lines}
    for name in progress.track([n for n in wanted if n not in known], label="table", unit="case"):
        row = compile_case(name)
        lines.append(json.dumps({"case": name, **row}))
        path.write_text("\n".join(lines) + "\n")


def compile_case(name: str) -> dict[str, object]:
    """The report of one case, by the command that a user would call."""
    mix, size, place = name.split("/")
    command = [sys.executable, "-m", "experiments.compile_topology", f"--topology={place}"]
    command += [f"--config=configs/fourm.py:mix={mix},size={size}", "--notwo_layers"]
    command += ["--config.model.scan_unroll=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not found:
        raise ValueError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(found[-1])


if __name__ == "__main__":
    cli.run(main)
