"""Train a trunk or a tokenizer from a config, or fine-tune one; run it again to continue.

    python -m experiments.train --config=configs/scenes.py:size=nano --workdir=runs/nano

Override any key with e.g. --config.optimizer.lr=1e-3 --config.mesh.fsdp=2 --config.log_every=10.
--evals=val_loss,any_to_any measures after the last step, with --option=val_loss.every=500 on the
way too (docs/howto/evaluate.md#while-it-trains). Ctrl-C or SIGTERM saves and leaves. Several hosts
(docs/howto/several-hosts.md#start): --coordinator=host:port --process_count=N --process_id=i, or
--cluster on Cloud TPU or SLURM.
"""

from collections.abc import Mapping

from absl import flags
from ml_collections import config_flags

from experiments import cli, processes

cli.set_environment()

import jax  # noqa: E402
import ml_collections  # noqa: E402
from clu import platform  # noqa: E402

from fourm_jax import loading  # noqa: E402
from fourm_jax.jobs import predictions, training_evals, transfer_eval, transferred  # noqa: E402
from fourm_jax.parallel import shares  # noqa: E402
from fourm_jax.train import export, loop, run_config  # noqa: E402
from fourm_jax.train.state import TrainState  # noqa: E402
from fourm_jax.utils import io, progress, run_folder  # noqa: E402

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
processes.define()
HANG = flags.DEFINE_float(
    "hang_seconds", loop.HANG_SECONDS, "End with status 77 after so long without a step; 0: never."
)
PROFILE = flags.DEFINE_list("profile_steps", [], "FIRST,LAST step of a trace in WORKDIR/profile.")
EVALS = cli.define_names("evals", [], "Evaluators beside those of the config's evals.")
OPTIONS = cli.define_names(
    "option", [], "NAME.OPTION=VALUE of --evals; repeatable.", repeatable=True
)
HISTOGRAMS = flags.DEFINE_bool(
    "histograms", False, "Show how the parameters are distributed at every checkpoint."
)


def main() -> None:
    """Train; a tokenizer or a fine-tuned model is then saved for use."""
    config = training_evals.extended(CONFIG.value, EVALS.value, OPTIONS.value)
    run_config.check(config)
    if config.task == "transfer" and io.is_remote(WORKDIR.value):
        raise ValueError(f"{WORKDIR.value}: a model is fine-tuned in a local folder")
    processes.start()
    if config.task == "tokenizer":
        export.open_held_out(config)  # before it is trained, not after
    work_unit = platform.work_unit()  # a job scheduler shows it, where clu knows one
    work_unit.set_task_status(f"process {jax.process_index()} of {jax.process_count()}")
    work_unit.create_artifact(platform.ArtifactType.DIRECTORY, str(WORKDIR.value), "workdir")
    evaluators: tuple[loop.Evaluator, ...] = ()
    if config.task == "transfer":
        evaluators = (transfer_eval.make_evaluator(config),)
    elif config.eval_every or config.get("evals"):
        evaluators = training_evals.make(config, WORKDIR.value)
        evaluators += predictions.make_evaluators(config, WORKDIR.value)
    result = loop.train(
        config,
        WORKDIR.value,
        evaluators=evaluators,
        read_weights=loading.weights,
        hang_seconds=HANG.value,
        profile_steps=profile_steps(),
        histograms=HISTOGRAMS.value,
    )
    if config.task == "fourm":
        return
    state = result.state
    if jax.process_count() > 1:  # of which each may hold a part
        named = {"params": state.eval_params, "model_state": state.model_state}
        state = state.replace(ema_params=None, **shares.whole(named))
    if jax.process_index() == 0:
        save(config, state, result.metrics)


def save(
    config: ml_collections.ConfigDict, state: TrainState, metrics: Mapping[str, float]
) -> None:
    """Save a finished tokenizer or fine-tuned model for use."""
    if config.task == "tokenizer":
        folder = WORKDIR.value / run_folder.TOKENIZER
        export.save_tokenizer(config, state, folder)
        progress.announce(f"tokenizer and card: {folder}")
    if config.task == "transfer":
        folder = WORKDIR.value / run_folder.TRANSFER
        transferred.save(config, state, folder)
        measures = {n: v for n, v in metrics.items() if n.startswith("eval/")}
        progress.announce(", ".join(f"{name} {value:.4f}" for name, value in measures.items()))
        progress.announce(f"fine-tuned model: {folder}")


def profile_steps() -> tuple[int, int]:
    """First and last step of --profile_steps; (0, 0) where there are none."""
    if not PROFILE.value:
        return 0, 0
    if len(PROFILE.value) != 2 or not all(map(str.isdecimal, PROFILE.value)):
        raise ValueError(f"--profile_steps={','.join(PROFILE.value)}, expected FIRST,LAST")
    return int(PROFILE.value[0]), int(PROFILE.value[1])


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    cli.run(main)
