"""Run every tokenizer over a raw data set and write token shards; continues where it was killed.

python -m experiments.tokenize_dataset --config=configs/data/scenes.py:tokenize --split=train \
    --tokenizers=DIR --output=DIR

Several processes share the work with --process_id=0..P-1 --process_count=P; each uses all of its
devices. The same command continues after any interruption. `config.crops.num_crops` crops of every
record are tokenized (0: records as they are); training draws one of them per sample. Records that
cannot be used are listed in OUTPUT/SPLIT.left_out.jsonl, and the rest goes on.
"""

from absl import flags
from ml_collections import config_flags

from experiments import cli, processes
from fourm_jax.data import datasets
from fourm_jax.data.crops import policy
from fourm_jax.data.storage import left_out
from fourm_jax.jobs import pretokenize, shard_job
from fourm_jax.modalities import registry
from fourm_jax.utils import errors, progress

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/data/NAME.py:tokenize")
_SPLIT = flags.DEFINE_string("split", "train", "Split to write, a key of config.num_records.")
_TOKENIZERS = cli.define_path(
    "tokenizers", None, "Folder with one folder per tokenizer.", required=True
)
_OUTPUT = cli.define_path("output", None, "Folder of the shards.", required=True, written="folder")
processes.define()


def main() -> None:
    """Tokenize one split."""
    watch = progress.Stopwatch()
    result = tokenize(_CONFIG.value.to_dict())
    left_out.announce(_OUTPUT.value, _SPLIT.value)
    if result.num_records is None:
        progress.announce("this process is done; others are still writing")
        return
    progress.announce(
        f"tokens of {result.num_records} {_SPLIT.value} records -> {_OUTPUT.value} in "
        f"{watch.seconds():.0f} s ({result.left_out.num_records} left out)"
    )


def tokenize(config: dict) -> shard_job.Result:
    """Do what the config and the flags say."""
    if "num_records" not in config:
        raise ValueError("--config is no config of tokens to make: configs/data/NAME.py:tokenize")
    if _SPLIT.value not in config["num_records"]:
        raise ValueError(errors.unknown_value("split", _SPLIT.value, config["num_records"]))
    modalities = config["modalities"]
    specs = registry.resolve(
        modalities["family"],
        modalities["names"],
        modalities["overrides"],
        modalities.get("added"),
    )
    arguments = dict(config["arguments"])
    if config["num_records"][_SPLIT.value]:  # 0 is all, and not every source can be cut short
        arguments["num_records"] = config["num_records"][_SPLIT.value]
    job = pretokenize.Job(
        source=datasets.open_source(config["source"], _SPLIT.value, arguments),
        output=_OUTPUT.value,
        split=_SPLIT.value,
        recipe={"source": config["source"], "arguments": arguments},
        records_per_shard=config["records_per_shard"],
        **processes.share(),
        show_progress=True,
    )
    crops = policy.make(config.get("crops", {}))
    return pretokenize.tokenize(job, specs, _TOKENIZERS.value, seed=config["seed"], crops=crops)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    cli.run(main)
