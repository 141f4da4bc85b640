"""Write one vector per record: an index that `experiments.search` reads.

python -m experiments.embed --source=runs/quickstart --features=global --output=runs/index
python -m experiments.embed --source=runs/quickstart --data=configs/data/scenes.py:tokenize \
    --split=train --features=decoder:tok_depth --format=array_record --output=runs/index

Features: encoder, decoder:NAME or global[:NAME] (see fourm_jax/generate/features.py), of the
modalities in --condition. The same command continues where it was stopped. As many bad records as
the training of the run allowed are left out, and listed in OUTPUT/SPLIT.left_out.jsonl.
"""

from absl import flags

from experiments import cli

cli.set_environment()

from fourm_jax import loading  # noqa: E402
from fourm_jax.data.storage import left_out  # noqa: E402
from fourm_jax.jobs import embedding, eval_data  # noqa: E402
from fourm_jax.utils import config as config_lib  # noqa: E402

_SOURCE = cli.define_path("source", None, cli.SOURCE, required=True)
_TOKENIZERS = cli.define_path(
    "tokenizers", None, "Folder with one folder per tokenizer; default: that of the source."
)
_DATA = flags.DEFINE_string("data", None, "Config of a data set; default: the data of the run.")
_SPLIT = flags.DEFINE_string("split", "test", "Of the records.")
_FEATURES = flags.DEFINE_string("features", "encoder", "encoder, decoder:NAME or global[:NAME].")
_DEPTH = flags.DEFINE_integer("depth", 0, "Blocks of the encoder; 0: all.", lower_bound=0)
_CONDITION = cli.define_names("condition", ["rgb"], "Modalities that the model sees, together.")
_RECORDS = flags.DEFINE_integer("num_records", 0, "Of each data set; 0: all.", lower_bound=0)
_BLOCK = flags.DEFINE_integer("per_block", 1_024, "Records per file.", lower_bound=1)
_FORMAT = flags.DEFINE_enum("format", "npy", list(embedding.FORMATS), "Of the vectors.")
_OUTPUT = cli.define_path("output", None, "Folder of the index.", required=True, written="folder")


def main() -> None:
    """Read the model, write the vectors."""
    embedding.check_output(_OUTPUT.value)  # before a model is read
    config = config_lib.load(cli.find_config(_DATA.value)) if _DATA.value else None
    generator = loading.load_generator(_SOURCE.value, tokenizers=_TOKENIZERS.value)
    job = embedding.Job(
        source=str(_SOURCE.value),
        data=eval_data.choose(_SOURCE.value, config, _TOKENIZERS.value),
        split=_SPLIT.value,
        condition=tuple(_CONDITION.value),
        kind=_FEATURES.value,
        depth=_DEPTH.value,
        num_records=_RECORDS.value,
        format=_FORMAT.value,
        per_block=_BLOCK.value,
        output=_OUTPUT.value,
    )
    count = embedding.run(generator, job, show_progress=True)
    print(f"{count} vectors: {_OUTPUT.value}")
    if gone := len(left_out.gone(_OUTPUT.value, _SPLIT.value)):
        listed = left_out.list_path(_OUTPUT.value, _SPLIT.value)
        print(f"{gone} records left out, listed in {listed}")


if __name__ == "__main__":
    cli.run(main)
