"""Check all that lies in a run folder for damage; nothing is changed.

    fourm scrub --source=runs/quickstart

Checkpoints and shards are compared with the digests of what was written, tokenizers are opened.
One line each. Ends with status 1 where something is damaged. Training and everything that reads a
run pass damaged checkpoints over by themselves.
"""

import sys

from experiments import cli
from fourm_jax.jobs import scrub
from fourm_jax.utils import progress

SOURCE = cli.define_path(
    "source",
    None,
    "A run folder, the work directory of a training, a folder of shards or of a tokenizer.",
    required=True,
)


def main() -> None:
    """Print a line per part, then the verdict."""
    num_parts = num_damaged = 0
    for part in scrub.check(SOURCE.value):
        progress.announce(f"{part.path}: {part.verdict}")
        num_parts += 1
        num_damaged += part.is_damaged
    if num_damaged:
        sys.exit(f"error: {num_damaged} of {num_parts} parts are damaged")


if __name__ == "__main__":
    cli.run(main)
