"""Train a trunk or a tokenizer from a config; run it again to continue or to finish.

    python -m experiments.train --config=configs/scenes.py:size=nano --workdir=runs/nano

Override any key with e.g. --config.optimizer.lr=1e-3 --config.mesh.fsdp=2 --config.log_every=10.
Ctrl-C or SIGTERM saves and leaves. Several hosts: set FOURM_COORDINATOR=host:port,
FOURM_NUM_PROCESSES and FOURM_PROCESS_ID on each, or pass --cluster on Cloud TPU or SLURM.
"""

from absl import flags
from ml_collections import config_flags

from experiments import cli

cli.set_environment()

import jax  # noqa: E402
from clu import platform  # noqa: E402

from fourm_jax.parallel import distributed  # noqa: E402
from fourm_jax.train import export, held_out, loop, run_config  # noqa: E402
from fourm_jax.utils import progress, run_folder  # noqa: E402

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file and its argument, e.g. configs/scenes.py:size=nano,runlocal"
)
WORKDIR = cli.define_path(
    "workdir",
    None,
    "Folder of checkpoints and metrics; one run each.",
    required=True,
    written="folder",
)
CLUSTER = flags.DEFINE_bool(
    "cluster", False, "Find the other processes through JAX's cluster help."
)


def main() -> None:
    """Train; a tokenizer is then saved for use."""
    run_config.check(CONFIG.value)
    distributed.start(cluster=CLUSTER.value)
    work_unit = platform.work_unit()  # a job scheduler shows it, where clu knows one
    work_unit.set_task_status(f"process {jax.process_index()} of {jax.process_count()}")
    work_unit.create_artifact(platform.ArtifactType.DIRECTORY, str(WORKDIR.value), "workdir")
    config = CONFIG.value
    evaluators = (held_out.make_evaluator(config),) if config.eval_every else ()
    result = loop.train(config, WORKDIR.value, evaluators=evaluators)
    if CONFIG.value.task == "tokenizer":
        folder = WORKDIR.value / run_folder.TOKENIZER
        export.save_tokenizer(CONFIG.value, result.state, folder)
        progress.announce(f"tokenizer and card: {folder}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    cli.run(main)
