"""The whole road in one job: render, learn tokenizers, tokenize, train the trunk."""

import ml_collections
from etils import epath

from fourm_jax.data import datasets as sources
from fourm_jax.jobs import phases, pretokenize, run_phases, shard_job
from fourm_jax.train import loop
from fourm_jax.utils import folder_lock

PHASES = ("render", *run_phases.PHASES, "evaluate", "report")
SPLITS = ("train", "test")
KEYS = ("raw_fields", *run_phases.KEYS)
COUNTS = (
    *(f"pretokenize.num_records.{split}" for split in SPLITS),
    *(f"evaluation.{key}" for key in ("num_records", "num_shown")),
)
NUM_TEXTS = 4_096  # records that the text tokenizer learns from


def prepare(
    config: ml_collections.ConfigDict, workdir: epath.PathLike, record: phases.Phases
) -> loop.TrainResult:
    """Run the phases up to the trained trunk; return its final state.

    Args:
      config: see configs/quickstart.py.
      workdir: of this job alone.
      record: keeps the seconds of each phase.

    Raises:
      ValueError: an invalid config, a work directory made with another one, or one that another
        process writes.
    """
    check_keys(config)
    config, workdir = run_phases.locate(config, workdir), epath.Path(workdir)
    run_phases.check(config, workdir)
    with folder_lock.hold(workdir):
        _render(config, workdir, record)
        num_texts = min(NUM_TEXTS, config.pretokenize.num_records.train)
        run_phases.train_text(config, workdir, record, numbers=range(num_texts))
        run_phases.train_tokenizers(config, workdir, record)
        for written in run_phases.tokenize(config, workdir, record, splits=SPLITS).values():
            _check(written)
        return run_phases.train_trunk(config, workdir, record)


def check_keys(config: ml_collections.ConfigDict) -> None:
    """Refuse a config of something else, and counts of nothing.

    Raises:
      ValueError: a key that is unknown or missing, or a number below 1.
    """
    run_phases.check_keys(config, KEYS, COUNTS, "the quickstart")


def _render(config: ml_collections.ConfigDict, workdir: epath.Path, record: phases.Phases) -> None:
    settings, output = config.pretokenize, run_phases.raw_dir(workdir)
    finished = all((output / f"{split}.json").exists() for split in SPLITS)
    counts = settings.num_records.to_dict()
    what = f"{counts['train']:,} training and {counts['test']:,} held-out records"
    with record.run("render", f"{'reusing' if finished else 'making'} {what}"):
        for split in SPLITS:
            arguments = {**settings.arguments.to_dict(), "num_records": counts[split]}
            job = pretokenize.Job(
                source=sources.open_source(settings.source, split, arguments),
                output=output,
                split=split,
                recipe={"source": settings.source, "arguments": arguments},
                records_per_shard=settings.records_per_shard,
                show_progress=not finished,
            )
            _check(pretokenize.export(job, config.raw_fields))


def _check(result: shard_job.Result) -> None:
    """Raw records and tokens are compared row by row: none may be left out."""
    if result.left_out.num_records:
        count, first = result.left_out.num_records, result.left_out.examples[0]
        raise ValueError(f"{count} records left out, e.g. {first}")
