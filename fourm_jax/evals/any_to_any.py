"""Out-of-the-box metrics: one modality from another on held-out data, beside two lines to read by.

The *tokenizer bound* decodes the true tokens: no trunk can do better with these tokenizers. The
*constant* ignores the condition.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from fourm_jax.evals import measure
from fourm_jax.evals.measure import Measure
from fourm_jax.generate import defaults, results
from fourm_jax.generate.generator import Generator
from fourm_jax.modalities import serializers
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers.signal import Signal
from fourm_jax.utils import progress

Fields = Mapping[str, Any]  # {record field: [n, ...] array or list of n values}
Tokens = Mapping[str, Any]  # {modality: {"ids", "present" | "length"}}

BATCH = 128  # rows on the device at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What an evaluation reads.

    Attributes:
      truth: raw fields of the held-out records.
      tokens: their tokens, entries of the batch contract, same order.
      train: raw fields of training records, for the constant predictors.
    """

    truth: Fields
    tokens: Tokens
    train: Fields

    def __len__(self) -> int:
        return len(next(iter(self.truth.values())))

    def rows(self, chosen: Int[np.ndarray, "k"]) -> "HeldOut":
        """The same of these held-out records alone."""
        truth = {
            name: values[chosen] if isinstance(values, np.ndarray) else [values[i] for i in chosen]
            for name, values in self.truth.items()
        }
        tokens = {
            name: {key: np.asarray(value)[chosen] for key, value in entry.items()}
            for name, entry in self.tokens.items()
        }
        return HeldOut(truth=truth, tokens=tokens, train=self.train)


def comparable(fields: Fields, specs: Sequence[ModalitySpec]) -> dict[str, Any]:
    """Raw fields in the form in which predictions are, where records hold texts in several.

    Raises:
      ValueError: a value that is of none of these forms.
    """
    forms = {spec.source: spec.text_form for spec in specs if spec.kind == "sequence"}
    return {
        name: [serializers.as_record(forms[name], value) for value in values]
        if name in forms and not isinstance(values, np.ndarray)  # which are in one form
        else values
        for name, values in fields.items()
    }


def from_one(
    generator: Generator,
    data: HeldOut,
    condition: str,
    *,
    targets: Sequence[str] | None = None,
    show_progress: bool = False,
) -> dict[str, dict[str, Any]]:
    """Every other modality, or the `targets`, from `condition`; tasks "<condition>-><target>".

    Each is generated with the defaults of `generate`; beside it stand the numbers of one pass over
    grids and vectors. How a target is judged follows from its spec (`measure.of`); a modality
    without a measure is left out.
    """
    tasks = {}
    names = judged(generator, condition, targets)
    given = {condition: data.tokens[condition]}
    passes = one_pass(
        generator, given, [name for name in names if generator.spec(name).kind != "sequence"]
    )
    for name in progress.track(names, label="evaluate", unit="modality", enabled=show_progress):
        spec = generator.spec(name)
        made = passes.get(name)
        if not defaults.is_one_pass(spec, generator.model.modalities):
            decoded = generator.generate(given, [name], batch_size=BATCH).decoded[name]
            made = record_values(spec, decoded)
        tasks[f"{condition}->{name}"] = measure.judge(
            measure.of(spec, signal_of(generator, spec)),
            made,
            bound(generator, data, spec),
            data.truth[spec.source],
            train=data.train[spec.source],
            one_pass=passes.get(name),
        )
    return tasks


def judged(generator: Generator, condition: str, targets: Sequence[str] | None = None) -> list[str]:
    """The targets that have a measure and another field than the condition, in their order."""
    names = generator.model.outputs if targets is None else targets
    source = generator.spec(condition).source
    return [
        spec.name
        for spec in sorted(map(generator.spec, names), key=lambda spec: spec.decoding_order)
        if spec.source != source and measure.of(spec, signal_of(generator, spec))
    ]


def generated(
    generator: Generator,
    data: HeldOut,
    conditions: Sequence[str],
    target: str,
    how: Sequence[Measure],
    *,
    truth: str,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """One target generated from `conditions`, judged against another record field.

    Its defaults are those of `generate`; beside it stand the numbers of one pass.

    Args:
      how: compare generated values with those of the field `truth`; the first is the headline.
    """
    spec = generator.spec(target)
    given = {name: data.tokens[name] for name in conditions}
    made = generator.generate(given, [target], seed=seed, batch_size=BATCH)
    task = measure.judge(
        how,
        made.decoded[target].raw,
        bound(generator, data, spec),
        data.truth[truth],
        train=data.train[spec.source],
        like=data.truth[spec.source],
        one_pass=one_pass(generator, given, [target])[target],
        real=data.truth[spec.source],
    )
    return {f"{'+'.join(conditions)}->{target}": task}


def one_pass(
    generator: Generator, given: Mapping[str, Any], targets: Sequence[str]
) -> dict[str, Any]:
    """Predictions of grids and vectors from one pass of the trunk, as the raw fields."""
    if not targets:
        return {}
    probabilities = generator.predict(given, targets, batch_size=BATCH)
    made = {}
    for name in targets:
        tokenizer = generator.tokenizer(name)
        grid = results.as_grid(generator.spec(name), probabilities[name])
        if tokenizer.signal.kind == "continuous":  # averages of its codes mean something
            made[name] = tokenizer.decode_probabilities(grid)
        else:
            made[name] = tokenizer.decode(grid.argmax(-1))
    return made


def signal_of(generator: Generator, spec: ModalitySpec) -> Signal | None:
    """What the tokenizer of a grid or global modality reads; None for other kinds."""
    return generator.tokenizer(spec.name).signal if spec.kind in ("grid", "global") else None


def bound(generator: Generator, data: HeldOut, spec: ModalitySpec) -> Any:
    """The true tokens, decoded.

    Raises:
      ValueError: the generator lacks the tokenizer.
    """
    entry: Mapping[str, Any] = data.tokens[spec.name]
    ids = np.asarray(entry["ids"]).astype(np.int32)
    known = np.ones(ids.shape[:2], bool)
    if "length" in entry:
        known = np.arange(ids.shape[1]) < np.asarray(entry["length"])[:, None]
    decoded = results.decode(spec, ids, known, generator.tokenizers)
    if decoded is None:
        raise ValueError(f"modality {spec.name!r} needs tokenizer {spec.tokenizer!r}")
    return record_values(spec, decoded)


def record_values(spec: ModalitySpec, decoded: results.Decoded) -> Any:
    """Decoded sequences in the form of the raw record field; other kinds as they are."""
    if spec.kind != "sequence":
        return decoded.raw
    if spec.text_form == serializers.PLAIN:
        return list(decoded.texts)  # what is no word counts as it stands
    form = serializers.get(spec.text_form)
    return [form.to_record(value) for value in decoded.raw]
