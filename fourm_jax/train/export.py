"""From a finished tokenizer run to the tokenizer on disk: weights and card with held-out errors."""

import collections
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath
from jaxtyping import Num

from fourm_jax.data import datasets
from fourm_jax.data.storage import left_out
from fourm_jax.tokenizers import base
from fourm_jax.tokenizers.trained import TrainedTokenizer
from fourm_jax.train import run_config
from fourm_jax.train.state import TrainState
from fourm_jax.train.tokenizer_task import TokenizerTask
from fourm_jax.utils import errors, progress

NUM_HELD_OUT = 512


def save_tokenizer(
    config: ml_collections.ConfigDict,
    state: TrainState,
    directory: epath.PathLike,
    *,
    held_out: Num[np.ndarray, "n ..."] | None = None,
) -> TrainedTokenizer:
    """Save what `train.loop.train` trained from `config`, and read it back.

    Of a run that keeps a running average of the parameters, the average is saved.

    Args:
      held_out: raw signals for the errors and codebook statistics on the card; default: the first
        512 records of split "test" of the config's data.

    Raises:
      ValueError: `config` does not describe a tokenizer; `directory` holds something else.
    """
    if config.task != "tokenizer":
        raise ValueError(f"config of task {config.task!r}, allowed: 'tokenizer'")
    held_out = read_held_out(config) if held_out is None else held_out
    task = run_config.make_tokenizer_task(config)
    variables = jax.device_get(task.variables(state.eval_params, state.model_state))
    output = jax.jit(lambda raw: task.module.apply(variables, raw))(held_out)
    card = base.make_card(
        config.tokenizer.name,
        config.tokenizer.family,
        config.tokenizer.to_dict()["arguments"],
        reconstruction={name: float(value) for name, value in output.metrics.items()},
        training_steps=int(state.step),
    )
    base.save(directory, task.module, variables, card)
    return base.load_trained(directory)


def read_held_out(
    config: ml_collections.ConfigDict, split: str = "test"
) -> Num[np.ndarray, "n ..."]:
    """Raw signals of the first records of a split of the config's first data set.

    Those that are damaged, that the tokenizer does not take, or of another shape than most are left
    out.

    Raises:
      ValueError: no records, or it takes none; names the last one.
    """
    task, dataset = run_config.make_tokenizer_task(config), open_held_out(config, split)
    numbers = range(min(NUM_HELD_OUT, len(dataset.source)))
    rows = datasets.read_records(dataset.source, numbers, dataset.name)
    taken = [
        row if isinstance(row, ValueError) else left_out.attempt(_taken, task, row) for row in rows
    ]
    good = [value for value in taken if not isinstance(value, ValueError)]
    shapes = collections.Counter(value.shape for value in good).most_common(1)
    good = [value for value in good if value.shape == shapes[0][0]]
    if not good:
        place = datasets.place_of(dataset, len(rows) - 1)
        raise ValueError(f"none of {len(rows)} held-out records can be used; {place}: {taken[-1]}")
    if len(good) < len(rows):
        progress.announce(f"{len(rows) - len(good)} of {len(rows)} held-out records left out")
    return np.stack(good)


def open_held_out(config: ml_collections.ConfigDict, split: str = "test") -> datasets.Dataset:
    """A split of the config's first data set; called before a training too, which needs it last.

    Raises:
      ValueError: no such split, or no record in it.
    """
    first = config.copy_and_resolve_references().unlock()
    first.data = config.data[:1]
    what = f"held-out records ({split!r}) for the card of tokenizer {config.tokenizer.name!r}"
    with errors.described_by(what):
        (dataset,) = run_config.make_datasets(first, split)
        if not len(dataset.source):
            raise ValueError(f"data set {dataset.name!r} has none")
    return dataset


def _taken(task: TokenizerTask, row: Mapping[str, Any]) -> np.ndarray:
    """The signal of a record as the tokenizer takes it."""
    if task.source_field not in row:
        raise ValueError(errors.unknown_value("record field", task.source_field, row))
    return task.taken(row[task.source_field])
