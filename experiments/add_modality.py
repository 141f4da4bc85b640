"""Teach a trained model one modality more; run it again to continue or to finish.

python -m experiments.add_modality --source=runs/quickstart --workdir=runs/more \
    --config=configs/finetune/add_to_scenes.py:modality=tok_instance_edge

The work directory becomes a run folder that generates the new modality beside the old ones.
"""

from absl import flags
from ml_collections import config_flags

from experiments import cli

cli.set_environment()

from fourm_jax.jobs import add_modality, phases  # noqa: E402
from fourm_jax.utils import progress  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "What is added, and how it is learned.")
_SOURCE = cli.define_path("source", None, "Run folder to start from.", required=True)
_WORKDIR = cli.define_path(
    "workdir", None, "Folder of the new run.", required=True, written="folder"
)


def main() -> None:
    """Run all phases."""
    record = phases.Phases(_WORKDIR.value, add_modality.PHASES)
    summary = add_modality.run(_CONFIG.value, _SOURCE.value, _WORKDIR.value, record)
    progress.announce(f"what it knew: loss {summary['knew']['change']:+.1%}")
    for name, task in summary["tasks"].items():
        progress.announce(
            f"{name}: {task['metric']} {task['model']:.3f} (constant {task['constant']:.3f}, "
            f"tokenizer {task['tokenizer_bound']:.3f})"
        )


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    cli.run(main)
