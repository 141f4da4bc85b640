"""Out-of-the-box metrics: one modality from another on held-out data, beside two lines to read by.

The *tokenizer bound* decodes the true tokens: no trunk can do better with these tokenizers. The
*constant* ignores the condition.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fourm_jax.evals import measures
from fourm_jax.evals.measures import Measure
from fourm_jax.generate import results
from fourm_jax.generate.generator import Generator
from fourm_jax.generate.grids import Sampling
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.ops import sampling
from fourm_jax.scenes import caption_scores, image_scores
from fourm_jax.tokenizers.signal import Signal

Fields = Mapping[str, Any]  # {record field: [n, ...] array or list of n values}
Tokens = Mapping[str, Mapping[str, np.ndarray]]  # {modality: {"ids", "present" | "length"}}

GREEDY = Sampling(draw=sampling.draw_most_likely)


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


def from_rgb(
    generator: Generator, data: HeldOut, family: str, condition: str = "rgb"
) -> dict[str, dict]:
    """Every other modality from `condition` alone; tasks "<condition>-><target>".

    Grids and vectors are predicted in one pass, sequences greedily token by token. A field that no
    measure names is judged by the kind of its signal; a sequence that none names is left out.

    Args:
      family: of the modalities; says how captions are judged (`measures.of_family`).
    """
    tasks, how = {}, measures.of_family(family)
    for name in sorted(generator.model.outputs, key=lambda n: generator.spec(n).decoding_order):
        spec = generator.spec(name)
        chosen = how.get(spec.source)
        if chosen is None and spec.kind != "sequence":
            chosen = measures.of_signal(signal_of(generator, spec))
        if chosen is None or spec.source == generator.spec(condition).source:
            continue
        predicted = predict(generator, data, condition, name)
        tasks[f"{condition}->{name}"] = judge(
            chosen, predicted, bound(generator, data, spec),
            data.truth[spec.source], data.train[spec.source],
        )  # fmt: skip
    return tasks


def to_picture(
    generator: Generator, data: HeldOut, conditions: Sequence[str], target: str = "tok_rgb",
    *, num_steps: int = 16, guidance: float = 3.0, seed: int = 0,
) -> dict[str, dict]:  # fmt: skip
    """Pictures generated from `conditions`, judged by the colours that the caption names.

    `colour_f1` compares the colours that a picture shows with those of its scene's caption: blank
    and average pictures show none and score 0.
    """
    spec = generator.spec(target)
    generated = generator.generate(
        {name: data.tokens[name] for name in conditions},
        [target],
        num_steps=num_steps,
        guidance=guidance,
        seed=seed,
    )
    wanted = [caption_scores.named_colours(text) for text in data.truth["caption"]]
    measure = Measure(
        metric="colour_f1", higher_is_better=True, score=image_scores.colour_f1,
        constant=lambda pictures: np.rint(pictures.mean(0)).astype(np.uint8),
    )  # fmt: skip
    task = judge(
        (measure,), generated.decoded[target].raw, bound(generator, data, spec), wanted,
        data.train[spec.source], like=data.truth[spec.source],
    )  # fmt: skip
    return {f"{'+'.join(conditions)}->{target}": task}


def predict(generator: Generator, data: HeldOut, condition: str, target: str) -> Any:
    """Prediction of one target from one condition, in the form of the raw field."""
    spec, given = generator.spec(target), {condition: data.tokens[condition]}
    if spec.kind == "sequence":
        result = generator.generate(given, [target], sampling=GREEDY, batch_size=128)
        return texts_or_values(spec, result.decoded[target])
    tokenizer = generator.tokenizers[spec.tokenizer]
    probabilities = results.as_grid(spec, generator.predict(given, target))
    if signal_of(generator, spec).kind == "continuous":  # averages of its codes mean something
        return tokenizer.decode_probabilities(probabilities)
    return tokenizer.decode(probabilities.argmax(-1))


def signal_of(generator: Generator, spec: ModalitySpec) -> Signal:
    """What the tokenizer of a grid or global modality reads."""
    return generator.tokenizers[spec.tokenizer].module.signal


def bound(generator: Generator, data: HeldOut, spec: ModalitySpec) -> Any:
    """The true tokens, decoded."""
    entry = data.tokens[spec.name]
    ids = np.asarray(entry["ids"]).astype(np.int32)
    known = np.ones(ids.shape[:2], bool)
    if "length" in entry:
        known = np.arange(ids.shape[1]) < np.asarray(entry["length"])[:, None]
    decoded = results.decode(spec, ids, known, tokenizers=generator.tokenizers, text=generator.text)
    return texts_or_values(spec, decoded)


# How the typed value of a text becomes what the raw field holds.
_PLAIN: Mapping[str, Callable[[Any], Any]] = {
    "det": lambda value: {"boxes": value.boxes, "classes": list(value.classes)},
    "color_palette": lambda value: value.colors,
    "metadata": lambda value: dict(value.values),
}


def texts_or_values(spec: ModalitySpec, decoded: results.Decoded) -> Any:
    """Decoded sequences in the form of the raw record field; other kinds as they are."""
    if spec.kind != "sequence":
        return decoded.raw
    plain = _PLAIN.get(spec.source)
    return list(decoded.texts) if plain is None else [plain(value) for value in decoded.raw]


def judge(
    how: Sequence[Measure], predicted: Any, best: Any, truth: Any, train: Any,
    *, like: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """One entry of metrics.json: the first measure at the top, the others under "also".

    Args:
      like: what a prediction looks like where that is not `truth`'s form.
    """
    entries = []
    for measure in how:
        constant = measures.constant_predictions(measure, train, truth if like is None else like)
        entries.append(
            {
                "metric": measure.metric,
                "unit": measure.unit,
                "higher_is_better": measure.higher_is_better,
                "model": measure.score(predicted, truth),
                "tokenizer_bound": measure.score(best, truth),
                "constant": measure.score(constant, truth),
                "n": len(truth),
            }
        )
    first, *others = entries
    return {**first, "also": others} if others else first
