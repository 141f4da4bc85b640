"""The tables of published sizes on TPUs and GPUs: fits or not, memory, bytes on the wire.

    python -m experiments.topology_table --output=experiments/results/topologies.jsonl

Appends one line per compilation and skips those that are there, so it can be stopped and called
again. Every case of TPUs is the step of configs/fourm.py at the published global batch, every one
of GPUs that of a batch that one GPU has taken; one that does not fit is tried again with less
memory, unless --first. The most asked for come first; --cases=SUBSTRING,… picks some, e.g.
--cases=xlarge/v5e:16x16 or --cases=gpu. --page=PAGE writes the tables of the file into a page
(docs/performance.md#on-tpus-before-one-is-rented) and compiles nothing. Needs the compilers:
pip install 'fourm_jax[tpu]' or 'fourm_jax[cuda]'.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from etils import epath

from experiments import cli
from fourm_jax.jobs import topology_table
from fourm_jax.utils import progress

OUTPUT = cli.define_path("output", None, "File of JSON lines.", required=True, written="file")
CASES = cli.define_names("cases", [], "Parts of the names MIX/SIZE/PLACE; default: all.")
FIRST = flags.DEFINE_bool("first", False, "Do not try again what does not fit.")
PAGE = cli.define_path("page", None, "Page with marks that the table goes between.")


def main() -> None:
    """Compile what is missing, one process each: a compiler that runs out of memory ends alone."""
    path = epath.Path(OUTPUT.value)
    rows = topology_table.read(path)
    if PAGE.value:
        page = epath.Path(PAGE.value)
        page.write_text(topology_table.into_page(page.read_text(), rows))
        return
    failed = []
    starts = [(case, list[str]()) for case in topology_table.cases(CASES.value)]
    starts += topology_table.policies(CASES.value)
    for case, first in progress.track(starts, label="table", unit="case"):
        changes: list[str] | None = first
        while changes is not None:
            row = topology_table.find(rows, case, changes)
            if row is None:
                found = compile_case(case, changes)
                if isinstance(found, str):
                    failed.append(f"{case} {' '.join(changes)}: {found}")
                    break
                row = {"case": case, "changes": changes, **found}
                rows.append(row)
                topology_table.write(path, rows)
            done = row["fits"] or first or FIRST.value  # policies are compared, fit or not
            changes = None if done else topology_table.next_changes(row)
    if failed:
        sys.exit("error: no report of\n  " + "\n  ".join(failed))


def compile_case(case: str, changes: Sequence[str]) -> dict[str, Any] | str:
    """The report of one case, by the command that a user would call, or why there is none."""
    command = [sys.executable, "-m", "experiments.compile_topology", "--notwo_layers"]
    command += topology_table.settings(case, changes)
    done = subprocess.run(command, capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if found:
        return json.loads(found[-1])
    said = done.stderr.strip().splitlines() or [""]
    return f"ended with {done.returncode}: {said[-1]}"


if __name__ == "__main__":
    cli.run(main)
