"""An evaluator is one file of `evals.evaluators`: from a model and held-out records to numbers.

A config lists them, as `config.evals = {"any_to_any": {"condition": "rgb"}, "codebooks": {}}`.
They run in a training, at its end, and alone (`experiments.evaluate`), and know no data set.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from fourm_jax.data.datasets import Dataset
from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.evals import any_to_any, evaluators
from fourm_jax.evals.any_to_any import Fields, HeldOut, Tokens
from fourm_jax.evals.report import Gallery
from fourm_jax.generate import features, job
from fourm_jax.generate.generator import Generator
from fourm_jax.masking.mixture import Mixture
from fourm_jax.utils import errors, modules

_NAMES = tuple[str, ...]  # type of an option that lists names
EXTRA = ("type", "every")  # keys of a config's entry that are no options of the evaluator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """Some records of a split, in their order.

    Attributes:
      keys: one name per record.
      tokens: entries of the batch contract.
      fields: raw fields; of records that were not kept raw, none.
    """

    keys: Sequence[str]
    tokens: Tokens
    fields: Fields

    def __len__(self) -> int:
        return len(self.keys)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masking:
    """How the masks of a validation loss are drawn, as in the training.

    Attributes:
      mixture: of the data sets, in their order.
      num_inputs, num_targets, budget: see `masking.sample.sample_tokens`.
    """

    mixture: Mixture
    num_inputs: int
    num_targets: int
    budget: str = "fill"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """What an evaluator is given.

    Attributes:
      generator: the trunk with its tokenizers, on one device or a mesh.
      datasets: token records of the split that is evaluated.
      read: ("train" | "test", at most so many) -> records; "test" is the split that is evaluated.
      num_records: of each data set that count; 0: all.
      masking: of the training; None where nothing tells.
      left_out: counts the bad records of `datasets`, as far as some may be left out.
      show_progress: draw bars.
    """

    generator: Generator
    datasets: tuple[Dataset, ...]
    read: Callable[[str, int], Records]
    num_records: int = 0
    masking: Masking | None = None
    left_out: LeftOutLog = dataclasses.field(default_factory=lambda: LeftOutLog(0))
    show_progress: bool = False

    def test(self) -> Records:
        """The records that are evaluated."""
        return self.read("test", self.num_records)

    def held_out(self, num_train: int) -> HeldOut:
        """Truth and tokens of the records, and raw fields of `num_train` training records.

        Raises:
          ValueError: there are no raw records.
        """
        test, train = self.test(), self.read("train", num_train)
        if not test.fields or not train.fields:
            raise ValueError(
                "no raw records to compare with: the folder raw/ of a run, or "
                "--data=configs/data/NAME.py:tokenize, has them"
            )
        specs = self.generator.model.modalities
        truth, of_train = (any_to_any.comparable(one.fields, specs) for one in (test, train))
        return HeldOut(truth=truth, tokens=test.tokens, train=of_train)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """What an evaluator finds.

    Attributes:
      tasks: {task: entry as of `evals.measure.judge`}; "model" is the number, what does not apply
        ("tokenizer_bound", "constant", "interval") is missing.
      per_class: {what: {class: number}}, for bars.
      draw: makes the pictures of the report.
    """

    tasks: Mapping[str, Mapping[str, Any]]
    per_class: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    draw: Callable[[], list[Gallery]] = list

    def values(self) -> Iterator[tuple[str, float]]:
        """The numbers of the model by name: ("rgb->tok_depth/mae", 0.25), …"""
        for task, first in self.tasks.items():
            for entry in (first, *first.get("also", ())):
                yield f"{task}/{entry['metric']}", float(entry["model"])


@runtime_checkable
class Evaluator(Protocol):
    """Measures a model."""

    def check(self, context: Context) -> None:
        """Refuse, before any step, what cannot be evaluated.

        Raises:
          ValueError: names what is missing or wrong.
        """
        ...

    def __call__(self, context: Context) -> Findings:
        """Evaluate a context that was checked."""
        ...


def load(name: str, options: Mapping[str, Any]) -> Evaluator:
    """Return the evaluator of an entry {name: options} of `config.evals`.

    Args:
      name: a file of `evals.evaluators`; any name where `options` has a "type".
      options: arguments of its `make`; values that a command line gives as texts are converted.

    Raises:
      ValueError: no such evaluator or option, a value of another type, or a name twice in a list.
    """
    file = options.get("type", name)
    make = modules.get(evaluators, "make", file, "evaluator").make
    parameters = inspect.signature(make).parameters
    given = {key: value for key, value in options.items() if key not in EXTRA}
    for key in given:
        if key not in parameters:
            raise ValueError(errors.unknown_value(f"option of evaluator {file!r}", key, parameters))
    read = {key: _convert(key, value, parameters[key].default) for key, value in given.items()}
    for key, value in read.items():
        if parameters[key].annotation == _NAMES:
            errors.check_distinct(f"option {key}: name", value)
    return make(**read)


def _convert(key: str, value: Any, default: Any) -> Any:
    """A value in the type of the default; texts of a command line are "a+b" for lists."""
    kind = type(default)
    if isinstance(default, tuple) and isinstance(value, str):
        return tuple(value.split("+"))
    if isinstance(default, bool) and isinstance(value, str):
        if value not in ("true", "false"):
            raise ValueError(f"option {key}={value}, allowed: true, false")
        return value == "true"
    try:
        converted = value if isinstance(value, kind) else kind(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"option {key}={value}, expected {kind.__name__}") from error
    if isinstance(converted, int) and isinstance(value, float) and converted != value:
        raise ValueError(f"option {key}={value}, expected a whole number")
    if isinstance(converted, int | float) and not 0 <= converted < math.inf:  # or nan
        raise ValueError(f"option {key}={value}, allowed: numbers from 0 on")
    return converted


def entry(
    metric: str,
    value: float,
    num_examples: int,
    *,
    higher_is_better: bool,
    unit: str = "",
    **others: Any,
) -> dict[str, Any]:
    """An entry of tasks; `others` may be tokenizer_bound, constant, interval, also."""
    return {
        "metric": metric,
        "unit": unit,
        "higher_is_better": higher_is_better,
        "model": value,
        "n": num_examples,
        **others,
    }


def check_features(context: Context, conditions: Sequence[str], kind: str) -> None:
    """Refuse inputs that the model does not have, and features that it does not give.

    Raises:
      ValueError: names the first one.
    """
    job.check_names(context.generator.parts, conditions, [])
    head, spec = features.parse(kind, context.generator.model)
    if head == "global" and spec is not None:
        context.generator.tokenizer(spec.name)


def check_labels(context: Context, path: str, num_train: int, least: int = 1) -> None:
    """Refuse records whose labels are missing or of other classes than those of training records.

    Args:
      least: of training records.

    Raises:
      ValueError: names the record or the class, or says how many there are.
    """
    train = labels(context.read("train", num_train), path)
    class_indices(train, labels(context.test(), path))
    if len(train) < least:
        raise ValueError(f"k {least}, allowed: 1..{len(train)}, the number of training records")


def labels(records: Records, path: str) -> np.ndarray:
    """The label of every record: of "metadata.num_objects" that entry of the raw field "metadata".

    Raises:
      ValueError: no raw records, or a record without such a value.
    """
    field, *rest = path.split(".")
    if field not in records.fields:
        raise ValueError(errors.unknown_value("raw field with labels", field, records.fields))
    found = []
    for key, value in zip(records.keys, records.fields[field], strict=True):
        try:
            for part in rest:
                value = value[int(part) if part.isdigit() else part]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"record {key}: no label {path!r} in its {field}") from error
        found.append(str(value))
    return np.array(found)


def class_indices(
    train: np.ndarray, test: np.ndarray
) -> tuple[Int[np.ndarray, "m"], Int[np.ndarray, "n"], tuple[str, ...]]:
    """Labels as indices into the classes of the training records, and these classes.

    Raises:
      ValueError: a label that no training record has.
    """
    classes = tuple(sorted(set(train.tolist())))
    outside = sorted(set(test.tolist()) - set(classes))
    if outside:
        raise ValueError(
            errors.unknown_value("class among the held-out labels", outside[0], classes)
        )
    index = {name: number for number, name in enumerate(classes)}
    return (
        np.array([index[name] for name in train.tolist()]),
        np.array([index[name] for name in test.tolist()]),
        classes,
    )
