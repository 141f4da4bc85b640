"""Run a command as several processes of this machine that compute together.

    python -m experiments.launch --processes=8 -- experiments.train --config=… --workdir=…

Each process takes one accelerator; with --cpu_devices=D, D forced devices on the CPU, to try a mesh
of several hosts on any machine. Ends with the exit code of the first process that fails; --dry_run
prints what would be started.
"""

import shlex
import sys

from absl import flags

from experiments import cli
from fourm_jax.parallel import distributed, launcher
from fourm_jax.utils import progress

PROCESSES = flags.DEFINE_integer("processes", None, "How many.", lower_bound=1, required=True)
CPU_DEVICES = flags.DEFINE_integer("cpu_devices", 0, "Devices of each on the CPU.", lower_bound=0)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the commands.")
COMMAND: list[str] = []  # what follows "--"
SHOWN = (
    distributed.COORDINATOR,
    distributed.PROCESS_COUNT,
    distributed.PROCESS_ID,
    "JAX_PLATFORMS",
    "JAX_NUM_CPU_DEVICES",
    "JAX_LOCAL_DEVICE_IDS",
)


def main() -> None:
    """Start them and wait."""
    if not COMMAND:
        raise ValueError("nothing to run: write the command behind --, as -- experiments.train …")
    command = [sys.executable, "-m", *COMMAND]
    own = launcher.environments(PROCESSES.value, cpu_devices=CPU_DEVICES.value)
    if DRY_RUN.value:
        for environment in own:
            settings = " ".join(f"{k}={environment[k]}" for k in SHOWN if k in environment)
            progress.announce(f"{settings} {shlex.join(command)}")
        return
    sys.exit(launcher.run(command, own))


if __name__ == "__main__":
    if "--" in sys.argv:
        split = sys.argv.index("--")
        COMMAND[:], sys.argv[split:] = sys.argv[split + 1 :], []
    cli.run(main)
