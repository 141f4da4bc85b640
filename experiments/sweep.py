"""Train a config at every point that its file lists, and compare them.

    python -m experiments.sweep --config=configs/ablation.py:runlocal --workdir=runs/ablation

The config file has a function sweep() beside get_config(): a list of {dotted key: value}. Every
point has a folder of its own; the same command continues what was stopped and skips what is
finished. Ends with table.md and losses.png in the work directory. --dry_run prints the commands.
"""

import shlex
import sys

from absl import flags
from ml_collections import config_flags

from experiments import cli

cli.set_environment()

from fourm_jax.jobs import sweep  # noqa: E402
from fourm_jax.utils import progress  # noqa: E402

CONFIG = config_flags.DEFINE_config_file("config", None, "Config with sweep() in its file.")
WORKDIR = cli.define_path("workdir", None, "Folder of the points.", required=True, written="folder")
MAX_PARALLEL = flags.DEFINE_integer("max_parallel", 1, "Trainings at once.", lower_bound=1)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the commands.")


def main() -> None:
    """Train, then compare."""
    config = config_flags.get_config_filename(flags.FLAGS["config"])
    common = config_flags.get_override_values(flags.FLAGS["config"])
    found = sweep.points(config, CONFIG.value)
    commands = {p.name: sweep.command(config, p, WORKDIR.value, common) for p in found}
    if DRY_RUN.value:
        for command in commands.values():
            progress.announce(shlex.join(command))
        return
    num_failed = sweep.run(commands, WORKDIR.value, max_parallel=MAX_PARALLEL.value)
    table = sweep.write_results(found, WORKDIR.value, sweep.measures(config))
    progress.announce(f"table: {table}")
    if num_failed:
        sys.exit(f"error: {num_failed} of {len(found)} trainings failed")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    cli.run(main)
