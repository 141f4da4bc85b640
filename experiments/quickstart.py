"""Everything in one command: render scenes, train tokenizers and trunk, generate, evaluate, report.

    python -m experiments.quickstart --workdir=runs/quickstart

Run it again to continue after an interruption, or to reuse what is there. 11 to 15 minutes and
under 6 GB on 2 CPU cores; `--config=configs/quickstart.py:runlocal` is a toy run of a minute or
two that checks the machinery.
"""

from ml_collections import config_flags

from experiments import cli

# Two host devices keep two cores busier than one device with two threads; a GPU ignores this.
cli.set_environment(XLA_FLAGS="--xla_force_host_platform_device_count=2")

from fourm_jax.jobs import phases, quickstart, quickstart_report  # noqa: E402
from fourm_jax.utils import progress  # noqa: E402

DEFAULT = "configs/quickstart.py"
CONFIG = config_flags.DEFINE_config_file("config", None, f"What to run, default {DEFAULT}.")
WORKDIR = cli.define_path(
    "workdir", "runs/quickstart", "Folder of this run's results.", written="folder"
)


def main() -> None:
    """Run all phases."""
    record = phases.Phases(WORKDIR.value, quickstart.PHASES)
    quickstart.prepare(CONFIG.value, WORKDIR.value, record)
    report = quickstart_report.run(CONFIG.value, WORKDIR.value, record)
    progress.announce(f"report: {report}")


if __name__ == "__main__":
    cli.run(main, config=DEFAULT)
