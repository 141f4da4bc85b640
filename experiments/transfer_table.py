"""Pretrained against scratch, full against LoRA, RGB against RGB-D, over the number of labels.

python -m experiments.transfer_table --source=runs/quickstart --workdir=runs/transfer

Every training takes about half a minute on 2 idle CPU cores; the same command continues, and others
with the same work directory add their rows to table.json and curves.png.
"""

from absl import flags

from configs.finetune import scenes
from experiments import cli

cli.set_environment()

from fourm_jax import loading  # noqa: E402
from fourm_jax.jobs import transfer_table  # noqa: E402
from fourm_jax.utils import errors, progress  # noqa: E402

VARIANTS = {
    "scratch": "init=scratch",
    "full": "init={source}",
    "lora": "init={source},lora=2",
    "rgbd": "init={source},inputs=rgbd",  # beside "full": mirrored as that is
    "think": "init={source},inputs=think",  # beside "unmirrored": no token can be mirrored
    "unmirrored": "init={source},mirror=false",
}
_SOURCE = cli.define_path("source", "runs/quickstart", "Run folder of the pretrained model.")
_WORKDIR = cli.define_path("workdir", None, "Folder of the runs.", required=True, written="folder")
_TASKS = cli.define_names("tasks", list(scenes.TASKS), "Of configs/finetune/scenes.")
_VARIANTS = cli.define_names("variants", list(VARIANTS), f"Of {', '.join(VARIANTS)}.")
_LABELS = cli.define_names("labels", ["64", "256", "1024"], "Numbers of labelled scenes.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Trainings per cell of the table.", lower_bound=1)
_OPTIONS = flags.DEFINE_string("options", "", "Further arguments of the config, e.g. steps=100.")


def main() -> None:
    """Run all trainings and print the table."""
    for name in _VARIANTS.value:
        if name not in VARIANTS:
            raise ValueError(errors.unknown_value("variant", name, VARIANTS))
    for labels in _LABELS.value:
        if not labels.isdecimal():
            raise ValueError(
                f"--labels={','.join(_LABELS.value)}, allowed: whole numbers, as 64,256"
            )
    for name, flag in (("tasks", _TASKS), ("variants", _VARIANTS), ("labels", _LABELS)):
        if not flag.value:
            raise ValueError(f"--{name} names nothing: there is no training to run")
    is_read = any("{source}" in VARIANTS[name] for name in _VARIANTS.value)
    if is_read and not _SOURCE.value.is_dir():  # before hours of trainings without it
        raise ValueError(f"--source={_SOURCE.value}: no such run folder")
    cases = [
        transfer_table.Case(
            task=task,
            variant=variant,
            num_labels=int(labels),
            seed=seed,
            config=scenes.get_config(
                f"task={task},labels={labels},seed={seed},"
                f"{VARIANTS[variant].format(source=_SOURCE.value)},{_OPTIONS.value}"
            ),
        )
        for seed in range(_SEEDS.value)  # outermost: a whole table of one seed comes first
        for task in _TASKS.value
        for variant in _VARIANTS.value
        for labels in _LABELS.value
    ]
    rows = transfer_table.run(cases, _WORKDIR.value, loading.weights)
    for row in rows:
        values = {k: v for k, v in row.items() if isinstance(v, float) and not k.endswith("±")}
        text = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        progress.announce(f"{row['task']} {row['variant']} {row['labels']}: {text}")


if __name__ == "__main__":
    cli.run(main)
