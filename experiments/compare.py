"""Compare runs: what was measured of them (metrics.json) and how they trained (metrics.jsonl).

python -m experiments.compare runs/evaluation_a runs/evaluation_b --output=runs/compared

A folder is a run, one training or the output of `experiments.evaluate`. It prints a table and
writes compare.html with curves; "better" and "worse" mark what differs from the first run by more
than the bootstrap intervals.
"""

import sys

from experiments import cli

cli.set_environment()

from fourm_jax.jobs import comparison  # noqa: E402

_OUTPUT = cli.define_path("output", "runs/compared", "Folder of the page.", written="folder")
_RUNS: list[str] = []


def main() -> None:
    """Read, print, write."""
    runs = comparison.read(_RUNS)
    print(comparison.text(runs))
    print(f"page: {comparison.write(runs, _OUTPUT.value)}")


if __name__ == "__main__":
    sys.argv[1:], _RUNS[:] = comparison.split(sys.argv[1:])
    cli.run(main)
