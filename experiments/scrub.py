"""Check the checkpoints of a run for damage: every file against the digest of what was written.

    fourm scrub --workdir=runs/nano

One line per checkpoint. Ends with status 1 where one is damaged; nothing is changed. Training and
everything that reads a run pass damaged checkpoints over by themselves.
"""

import sys

from experiments import cli
from fourm_jax.utils import digests, run_folder

WORKDIR = cli.define_path("workdir", None, "Work directory of a training.", required=True)


def main() -> None:
    folder = WORKDIR.value / run_folder.CHECKPOINTS
    steps = sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())
    if not steps:
        raise ValueError(f"no checkpoint in {folder}")
    num_damaged = 0
    for step in steps:
        damaged = digests.damaged(folder / str(step))
        num_damaged += bool(damaged)
        verdict = "no digests (written by an older version)" if damaged is None else "sound"
        print(f"{folder / str(step)}: {f'DAMAGED: {damaged}' if damaged else verdict}")
    if num_damaged:
        sys.exit(f"error: {num_damaged} of {len(steps)} checkpoints are damaged")


if __name__ == "__main__":
    cli.run(main)
