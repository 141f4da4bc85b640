"""Repeat one step of a run and say what in it is not finite.

    python -m experiments.replay_step --workdir=runs/nano --step=1234

A run that stops because of losses that are not finite names its batches; batch n belongs to step n.
The steps from the last checkpoint before it are repeated, with the same data, masks and random
numbers, on any number of devices. Prints one JSON object and writes nothing.
"""

import json

from absl import flags

from experiments import cli

cli.set_environment()

from fourm_jax.train import replay  # noqa: E402

WORKDIR = cli.define_path("workdir", None, "Work directory of the run.", required=True)
STEP = flags.DEFINE_integer("step", None, "Which one.", lower_bound=0, required=True)


def main() -> None:
    """Print what was found."""
    print(json.dumps(replay.replay(WORKDIR.value, STEP.value, show_progress=True), indent=2))


if __name__ == "__main__":
    cli.run(main)
