"""The table of published sizes on slices of TPUs: fits or not, memory, bytes on the wire.

    python -m experiments.topology_table --output=experiments/results/topologies.jsonl

Appends one line per compilation and skips those that are there, so it can be stopped and called
again. Every case is the step of configs/fourm.py at the published global batch; one that does not
fit is tried again with less memory, unless --first. The most asked for come first;
--cases=SUBSTRING,… picks some, e.g. --cases=xlarge/v5e:16x16. --page=PAGE writes the table of the
file into a page (docs/performance.md#on-tpus-before-one-is-rented) and compiles nothing.
Needs libtpu: pip install 'fourm_jax[tpu]'.
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
CASES = flags.DEFINE_list("cases", [], "Parts of the names MIX/SIZE/SLICE; default: all.")
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
    for case in progress.track(topology_table.cases(CASES.value), label="table", unit="case"):
        changes: list[str] | None = []
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
            changes = None if row["fits"] or FIRST.value else topology_table.next_changes(row)
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
