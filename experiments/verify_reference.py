"""Check this package against numbers recorded from the published implementation.

python -m experiments.verify_reference --cases=DIR

DIR holds golden folders: fm, fm_vit, generation, tokenizers, divae, quantizers, schedulers,
masking, text, transforms, posemb, lr_schedules (any); it may also be one of them, or the folder of
one case (fm/NAME, tokenizers/NAME). One line per quantity, then one line of JSON
{"cases", "quantities", "failed"}; the exit code is 1 if anything failed, was not understood or
could not be computed. Runs on the CPU, where the tolerances (float32 against float32) hold.
"""

import pathlib
import sys

from experiments import cli

cli.set_environment(JAX_PLATFORMS="cpu")

from experiments.parity import walk  # noqa: E402

_CASES = cli.define_path(
    "cases", None, "Folder of the golden folders, one of them, or one case's.", required=True
)


def main() -> None:
    """Walk the directory."""
    sys.exit(walk.run(pathlib.Path(_CASES.value)))


if __name__ == "__main__":
    cli.run(main)
