"""What a measure is, and which ones judge a modality: how wrong a prediction is, and what knowing
nothing would score."""

import importlib
import inspect
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from fourm_jax.evals import bootstrap, measures
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers.signal import Signal
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors, modules


@runtime_checkable
class Measure(Protocol):
    """How predictions of one raw record field are judged.

    Attributes:
      metric: name of the number.
      unit: of the number, "" where it has none or its name says it.
      higher_is_better: its direction.
    """

    @property
    def metric(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...

    def score(self, predicted: Any, truth: Any) -> float:
        """The number for the predictions of a whole set: arrays [n, ...] or lists of n values."""
        ...

    def constant(self, values: Any) -> Any:
        """The one prediction that ignores the input, from the values of a training set."""
        ...


@runtime_checkable
class Additive(Protocol):
    """A measure whose costly part is done once per example: `score` is `total(parts(...))`."""

    def parts(self, predicted: Any, truth: Any) -> Sequence[Any]:
        """What the score needs of every example."""
        ...

    def total(self, parts: Sequence[Any]) -> float:
        """The number of a set of these examples."""
        ...


@runtime_checkable
class PerClass(Protocol):
    """A measure that has a number per class, too."""

    def per_class(self, predicted: Any, truth: Any) -> Sequence[float]:
        """The numbers, in the order of the classes; nan for what does not occur."""
        ...


def load(name: str, signal: Signal | None = None) -> Measure:
    """Return a measure by name.

    Args:
      name: a file of `evals.measures`, then options of its `make`, as "miou:first_class=2"; or
        "room.module:NAME", a measure that a module of another room holds.
      signal: what the values are, for arrays.

    Raises:
      ValueError: no such measure or option.
    """
    head, _, options = name.partition(":")
    if "." in head:
        return _of_room(head, options)
    make = modules.get(measures, "make", head, "measure").make
    parameters = list(inspect.signature(make).parameters.values())[1:]
    defaults = {parameter.name: parameter.default for parameter in parameters}
    return make(signal, **config_lib.parse_arg(options, **defaults).to_dict())


def _of_room(module: str, name: str) -> Measure:
    """A measure of another room, which this one does not know."""
    try:
        held = vars(importlib.import_module(f"fourm_jax.{module}"))
    except ModuleNotFoundError as error:
        raise ValueError(f"measure {module}:{name}: there is no module {module!r}") from error
    known = [
        key
        for key, value in held.items()
        if hasattr(value, "higher_is_better") and not isinstance(value, type)
    ]
    if name not in known:
        raise ValueError(errors.unknown_value(f"measure of {module}", name, known))
    return held[name]


def of(spec: ModalitySpec, signal: Signal | None = None) -> tuple[Measure, ...]:
    """Measures of a modality, the headline first; none for a text form that has none.

    Args:
      signal: what its tokenizer reads; None for sequences.
    """
    names = spec.measure or ((_default(signal),) if signal else ())
    return tuple(load(name, signal) for name in names)


def unit(spec: ModalitySpec) -> str:
    """Unit of a modality's values, as its headline measure names it; "" where it names none."""
    options = spec.measure[0].partition(":")[2] if spec.measure else ""
    return dict(one.split("=", 1) for one in options.split(",") if "=" in one).get("unit", "")


def _default(signal: Signal) -> str:
    if signal.kind == "classes":
        return "miou"
    if signal.kind == "binary":
        return "f1"
    return "psnr" if signal.dtype == "uint8" else "mse"


def constant_predictions(measure: Measure, train: Any, like: Any) -> Any:
    """The constant prediction for every record of a set, in the shape of `like`."""
    constant = measure.constant(train)
    if isinstance(like, np.ndarray):
        return np.broadcast_to(constant, like.shape)
    return [constant] * len(like)


def interval(
    measure: Measure, predicted: Any, truth: Any, num_resamples: int
) -> tuple[float, float]:
    """The bootstrap interval of a measure over the examples."""
    if isinstance(measure, Additive):
        parts = measure.parts(predicted, truth)
        return bootstrap.interval(
            lambda rows: measure.total([parts[row] for row in rows]),
            len(truth),
            num_resamples=num_resamples,
        )
    return bootstrap.interval(
        lambda rows: measure.score(take(predicted, rows), take(truth, rows)),
        len(truth),
        num_resamples=num_resamples,
    )


def take(values: Any, rows: Int[np.ndarray, "k"]) -> Any:
    """Rows of an array, or of a list of values."""
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]


def judge(
    how: Sequence[Measure],
    predicted: Any,
    best: Any,
    truth: Any,
    *,
    train: Any,
    like: Any = None,
    one_pass: Any = None,
    num_resamples: int = 0,
    real: Any = None,
) -> dict[str, Any]:
    """One entry of metrics.json: the first measure at the top, the others under "also".

    Args:
      how: at least one measure.
      predicted, best: predictions of the model, and the true tokens decoded.
      truth: what both are compared with.
      train: values of a training set, for the constants.
      like: what a prediction looks like where that is not `truth`'s form.
      one_pass: predictions of one pass of the model, where there are such.
      num_resamples: of the bootstrap interval of "model"; 0: none.
      real: what was predicted, as it is, where that is not `truth`: what a perfect model scores.
    """
    entries = []
    for measure in how:
        constant = constant_predictions(measure, train, truth if like is None else like)
        entry = {
            "metric": measure.metric,
            "unit": measure.unit,
            "higher_is_better": measure.higher_is_better,
            "model": measure.score(predicted, truth),
            "tokenizer_bound": measure.score(best, truth),
            "constant": measure.score(constant, truth),
            "n": len(truth),
        }
        if one_pass is not None:
            entry["one_pass"] = measure.score(one_pass, truth)
        if num_resamples:
            entry["interval"] = interval(measure, predicted, truth, num_resamples)
        if real is not None:
            entry["real"] = measure.score(real, truth)
        entries.append(entry)
    first, *others = entries
    return {**first, "also": others} if others else first
