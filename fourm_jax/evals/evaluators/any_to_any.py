"""Every modality from one or several others, judged by the measures of its spec.

Each number stands between the tokenizer bound and the constant predictor, with its bootstrap
interval; `num_samples` averages (or lets vote) so many draws per record.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fourm_jax.evals import any_to_any, bootstrap, drawing, measure
from fourm_jax.evals.any_to_any import BATCH, HeldOut
from fourm_jax.evals.evaluator import Context, Findings
from fourm_jax.evals.galleries import picture_of
from fourm_jax.evals.measure import Additive, Measure, PerClass
from fourm_jax.evals.report import Gallery
from fourm_jax.generate import job
from fourm_jax.generate.generator import Generator
from fourm_jax.utils import errors, progress

SHOWN = 3  # records in each of best, median and worst
Predicted = Mapping[str, tuple[Any, Any]]  # {target: (predictions, true tokens decoded)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyToAny:
    """One pass per target over all records; options as of `make`."""

    conditions: tuple[str, ...]
    targets: tuple[str, ...]
    measures: tuple[str, ...]
    truth: str
    num_samples: int
    num_steps: int
    temperature: float
    num_train: int
    seed: int

    def check(self, context: Context) -> None:
        """Refuse unknown modalities and fields, and records without raw fields.

        Raises:
          ValueError: names the first one.
        """
        names = self._targets(context.generator)
        truth = context.held_out(self.num_train).truth
        fields = [context.generator.spec(name).source for name in (*self.conditions, *names)]
        for field in (*fields, *([self.truth] if self.truth else [])):
            if field not in truth:
                raise ValueError(errors.unknown_value("raw field", field, truth))

    def __call__(self, context: Context) -> Findings:
        """Generate and judge."""
        generator = context.generator
        names = self._targets(generator)
        data = context.held_out(self.num_train)
        predicted, tasks, per_class = {}, {}, {}
        given = {name: data.tokens[name] for name in self.conditions}
        shown = progress.track(
            names, label="any_to_any", unit="modality", enabled=context.show_progress
        )
        for name in shown:
            spec = generator.spec(name)
            how = self._measures(generator, name)
            values = self._predict(generator, given, name)
            best = any_to_any.bound(generator, data, spec)
            truth = data.truth[self.truth or spec.source]
            predicted[name] = (values, best)
            task = f"{'+'.join(self.conditions)}->{name}"
            tasks[task] = measure.judge(
                how,
                values,
                best,
                truth,
                train=data.train[spec.source],
                like=data.truth[spec.source],
                num_resamples=bootstrap.NUM_RESAMPLES,
            )
            for one in how[:1]:
                if isinstance(one, PerClass):
                    scores = one.per_class(values, truth)
                    per_class[f"{task}: {one.metric}"] = _named(scores, spec.classes)
        draw = functools.partial(self._draw, generator, data, predicted)
        return Findings(tasks=tasks, per_class=per_class, draw=draw)

    def _targets(self, generator: Generator) -> list[str]:
        job.check_names(generator.parts, self.conditions, self.targets)
        wanted = self.targets or generator.model.outputs
        sources = {generator.spec(name).source for name in self.conditions}
        names = [n for n in wanted if generator.spec(n).source not in sources]
        return any_to_any.judged(generator, self.conditions[0], names)

    def _measures(self, generator: Generator, name: str) -> tuple[Measure, ...]:
        spec = generator.spec(name)
        signal = any_to_any.signal_of(generator, spec)
        if self.measures and len(self.targets) == 1:
            return tuple(measure.load(one, signal) for one in self.measures)
        return measure.of(spec, signal)

    def _predict(self, generator: Generator, given: Mapping[str, Any], name: str) -> Any:
        """Values of one target; of several samples where it is a map or vector."""
        spec = generator.spec(name)
        options: dict[str, Any] = {"seed": self.seed, "batch_size": BATCH}
        if self.temperature:
            options["temperature"] = self.temperature
        if self.num_steps and spec.kind != "sequence":
            options["num_steps"] = self.num_steps
        if self.num_samples > 1 and spec.kind != "sequence":
            return generator.ensemble(given, name, num_samples=self.num_samples, **options)
        made = generator.generate(given, [name], **options)
        return any_to_any.record_values(spec, made.decoded[name])

    def _draw(self, generator: Generator, data: HeldOut, predicted: Predicted) -> list[Gallery]:
        """Best, median and worst records of every target."""
        return [self._gallery(generator, data, name, *values) for name, values in predicted.items()]

    def _gallery(
        self,
        generator: Generator,
        data: HeldOut,
        name: str,
        values: Any,
        best: Any,
    ) -> Gallery:
        spec, how = generator.spec(name), self._measures(generator, name)[0]
        truth = data.truth[spec.source]
        scores = per_record(how, values, data.truth[self.truth or spec.source])
        fields = {one: data.truth[generator.spec(one).source] for one in (*self.conditions, name)}
        draw = {one: _drawing(generator, one, data.train) for one in fields}
        rows = []
        for label, number in ranked(scores, how.higher_is_better):
            picture = picture_of(generator, fields, number)
            cells = [draw[one](fields[one][number], picture) for one in self.conditions]
            cells += [draw[name](one[number], picture) for one in (values, best, truth)]
            rows.append((f"{label}: {number}\n{how.metric} {scores[number]:.3g}", cells))
        given = [f"{one} (given)" for one in self.conditions]
        return Gallery(
            title=f"{'+'.join(self.conditions)} -> {name}: best, median and worst",
            note=f"Held-out records in the order of their own {how.metric}.",
            columns=["", *given, "prediction", "tokenizer bound", "truth"],
            rows=rows,
        )


def make(
    condition: tuple[str, ...] = ("rgb",),
    targets: tuple[str, ...] = (),
    measures: tuple[str, ...] = (),
    truth: str = "",
    num_samples: int = 1,
    num_steps: int = 0,
    temperature: float = 0.0,
    num_train: int = 2_048,
    seed: int = 0,
) -> AnyToAny:
    """Return the evaluator.

    Args:
      condition: what is given, together.
      targets: what is generated, each alone; none: all that have a measure.
      measures: of a single target, see `measure.load`; none: those of its spec.
      truth: raw field that these measures compare with, as "caption" for the colours in pictures;
        "": that of the target.
      num_samples: draws per record, of which maps and vectors are averages or votes.
      num_steps, temperature: of the draws; 0: the defaults of generation.
      num_train: training records behind the constant predictors.

    Raises:
      ValueError: measures of several targets, or several equal samples.
    """
    if measures and len(targets) != 1:
        raise ValueError("option measures is for one target; name it with the option targets")
    if truth and not measures:
        raise ValueError(f"option truth={truth} needs measures that compare with that field")
    if num_samples > 1 and temperature <= 0:
        raise ValueError(f"option num_samples={num_samples} needs a temperature above 0")
    return AnyToAny(
        conditions=condition,
        targets=targets,
        measures=measures,
        truth=truth,
        num_samples=num_samples,
        num_steps=num_steps,
        temperature=temperature,
        num_train=num_train,
        seed=seed,
    )


def per_record(how: Measure, predicted: Any, truth: Any) -> np.ndarray:
    """The measure of every record alone; nan where it has nothing to count.

    What a measure takes from the set as a whole (how rare a word is) is that of all records.
    """
    if isinstance(how, Additive):
        parts = how.parts(predicted, truth)
        return np.array([how.total([part]) for part in parts])
    rows = np.arange(len(truth))
    one = (rows[number : number + 1] for number in rows)
    return np.array(
        [how.score(measure.take(predicted, row), measure.take(truth, row)) for row in one]
    )


def ranked(scores: np.ndarray, higher_is_better: bool) -> list[tuple[str, int]]:
    """(label, record) of the best, middle and worst of the records that have a score."""
    order = np.argsort(-scores if higher_is_better else scores, kind="stable")
    order = order[np.isfinite(scores[order])]
    count = min(SHOWN, len(order) // 3)
    middle = (len(order) - count) // 2
    parts = (order[:count], order[middle : middle + count], order[len(order) - count :])
    labels = ("best", "median", "worst")
    return [
        (label, int(number)) for label, part in zip(labels, parts, strict=True) for number in part
    ]


def _drawing(generator: Generator, name: str, reference: Mapping[str, Any]) -> drawing.Draw:
    """How a modality is drawn, on one scale for all records."""
    spec = generator.spec(name)
    has_signal = spec.tokenizer in generator.tokenizers
    signal = any_to_any.signal_of(generator, spec) if has_signal else None
    return drawing.of(spec, signal=signal, reference=reference)


def _named(scores: Sequence[float], classes: Sequence[str]) -> dict[str, float]:
    names = classes or [str(number) for number in range(len(scores))]
    return {name: float(s) for name, s in zip(names, scores, strict=True) if np.isfinite(s)}
