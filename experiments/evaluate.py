"""Evaluate a model: losses, any modality from another, features, generated pictures.

python -m experiments.evaluate --source=runs/quickstart --evals=val_loss,any_to_any \
    --output=runs/evaluation
python -m experiments.evaluate --source=runs/quickstart --data=configs/data/scenes.py:tokenize \
    --evals=any_to_any,knn --option=any_to_any.targets=tok_depth+tok_semseg \
    --option=knn.label=det.classes.0 --output=runs/evaluation

It writes metrics.json and report.html. Data: those of the run; a config of configs/data names
others, with `tokenize` as raw records that the model's tokenizers encode. Evaluators are the files
of fourm_jax/evals/evaluators; --option=NAME.OPTION=VALUE sets one (lists as a+b). Several processes
(docs/howto/several-hosts.md#start) divide the batches; the numbers are those of one process.
"""

from absl import flags

from experiments import cli, processes

cli.set_environment()

import jax  # noqa: E402

from fourm_jax import loading  # noqa: E402
from fourm_jax.evals import evaluator  # noqa: E402
from fourm_jax.jobs import eval_data, evaluation  # noqa: E402
from fourm_jax.parallel import distributed  # noqa: E402
from fourm_jax.utils import config as config_lib  # noqa: E402

_SOURCE = cli.define_path("source", None, cli.SOURCE, required=True)
_TOKENIZERS = cli.define_path(
    "tokenizers", None, "Folder with one folder per tokenizer; default: that of the source."
)
_DATA = flags.DEFINE_string("data", None, "Config of a data set, as configs/data/scenes.py.")
_SPLIT = flags.DEFINE_string("split", "test", "Of the records.")
_EVALS = cli.define_names("evals", ["val_loss", "any_to_any"], "Names of evaluators.")
_OPTIONS = cli.define_names("option", [], "NAME.OPTION=VALUE; repeatable.", repeatable=True)
_RECORDS = flags.DEFINE_integer(
    "num_records", 256, "Of each data set; 0: all that there are.", lower_bound=0
)
_OUTPUT = cli.define_path("output", None, "Folder of the report.", required=True, written="folder")
processes.define()


def main() -> None:
    """Check everything, then evaluate."""
    evals = evaluation.typed(_EVALS.value, _OPTIONS.value)
    for name, options in evals.items():
        evaluator.load(name, options)  # before a model is read
    processes.start()
    evaluation.check_output(_OUTPUT.value)
    config = config_lib.load(cli.find_config(_DATA.value)) if _DATA.value else None
    generator = loading.load_generator(_SOURCE.value, tokenizers=_TOKENIZERS.value)
    generator.is_divided = jax.process_count() > 1
    job = evaluation.prepare(
        _SOURCE.value,
        generator,
        eval_data.choose(_SOURCE.value, config, _TOKENIZERS.value),
        evals,
        split=_SPLIT.value,
        num_records=_RECORDS.value,
        show_progress=jax.process_index() == 0,
    )
    distributed.check_same("flags", job.settings)
    evaluation.run(job, _OUTPUT.value)
    if jax.process_index() == 0:
        print(f"report: {_OUTPUT.value / evaluation.REPORT}")


if __name__ == "__main__":
    cli.run(main)
