"""For every kind of signal: how wrong a prediction is, and what knowing nothing would score."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fourm_jax.evals import boxes, depth, normal, semseg
from fourm_jax.modalities import metadata as metadata_lib
from fourm_jax.scenes import caption_scores, image_scores, world
from fourm_jax.tokenizers.signal import Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """How predictions of one record field are judged.

    Attributes:
      metric: name of the number.
      higher_is_better: its direction.
      unit: of the number, "" where it has none or its name says it.
      score: (predictions, truths) of a whole set -> number.
      constant: values of a training set -> the one prediction that ignores the input.
    """

    metric: str
    higher_is_better: bool
    score: Callable[[Any, Any], float]
    constant: Callable[[Any], Any]
    unit: str = ""


def binary_f1(predicted: np.ndarray, truth: np.ndarray, middle: float = 127.5) -> float:
    """F1 of the pixels that are on (above `middle`), counted over the set; 0..1."""
    shown, wanted = np.asarray(predicted) > middle, np.asarray(truth) > middle
    total = shown.sum() + wanted.sum()
    return float(2 * np.sum(shown & wanted) / total) if total else 1.0


def mean_squared_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared difference; 1 is the variance of standardised features."""
    return float(np.mean((np.asarray(predicted, np.float64) - truth) ** 2))


def palette_distance(predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Mean distance between each colour and the nearest of the other palette, both ways, 0..441.

    A palette without colours is as far as black from white.
    """
    return float(np.mean([_chamfer(p, t) for p, t in zip(predicted, truth, strict=True)]))


def _chamfer(first: np.ndarray, second: np.ndarray) -> float:
    first, second = (np.asarray(p, np.float64).reshape(-1, 3) for p in (first, second))
    if not len(first) or not len(second):
        return 255 * 3**0.5
    distance = np.linalg.norm(first[:, None] - second[None], axis=-1)
    return float((distance.min(0).mean() + distance.min(1).mean()) / 2)


def metadata_error(
    predicted: Sequence[Mapping[str, float]], truth: Sequence[Mapping[str, float]]
) -> float:
    """Mean |difference| in bins of the text form over all true fields; a missing one counts 50."""
    errors = []
    for guess, values in zip(predicted, truth, strict=True):
        for name, value in values.items():
            encoding = metadata_lib.FIELDS.named(name).encoding
            bins = [encoding.encode(v) for v in (guess.get(name, np.inf), value) if v < np.inf]
            errors.append(abs(bins[0] - bins[1]) if len(bins) == 2 else 50)
    return float(np.mean(errors))


def _mean_metadata(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.median([v[name] for v in values])) for name in values[0]}


def _detection_f1(predicted, truth) -> float:
    precision, recall = boxes.precision_recall(predicted, truth)
    return 2 * precision * recall / max(precision + recall, 1e-9)


def _usual_box(values: Sequence[Mapping]) -> dict:
    """The mean box of the most frequent class."""
    classes = [name for value in values for name in value["classes"]]
    usual = max(sorted(set(classes)), key=classes.count)
    chosen = [
        box
        for value in values
        for box, name in zip(value["boxes"], value["classes"], strict=True)
        if name == usual
    ]
    return {"boxes": np.mean(chosen, axis=0)[None], "classes": [usual]}


def _mean_iou(
    num_classes: int, classes: Sequence[int] | None = None
) -> Callable[[Any, Any], float]:
    def score(predicted, truth):
        predicted = np.broadcast_to(predicted, truth.shape)
        return semseg.mean_iou(semseg.confusion(predicted, truth, num_classes), classes)

    return score


def _share(right: Callable[[str, str], bool]) -> Callable[[Any, Any], float]:
    def score(predicted, truth):
        return float(np.mean([right(p, t) for p, t in zip(predicted, truth, strict=True)]))

    return score


def _of_binary(metric: str, low: float, high: float) -> Measure:
    middle = (low + high) / 2

    def likely(values: np.ndarray) -> np.ndarray:
        """The map of likely pixels with the best F1 on the training set."""
        share = np.mean(values > middle, axis=0)
        cuts = np.quantile(share, np.linspace(0, 0.9, 10))
        maps = [np.where(share >= cut, high, low) for cut in cuts]
        return max(maps, key=lambda m: binary_f1(np.broadcast_to(m, values.shape), values, middle))

    return Measure(
        metric=metric,
        higher_is_better=True,
        score=lambda predicted, truth: binary_f1(predicted, truth, middle),
        constant=likely,
    )


def _of_classes(metric: str, num_classes: int, classes: Sequence[int] | None = None) -> Measure:
    return Measure(
        metric=metric,
        higher_is_better=True,
        score=_mean_iou(num_classes, classes),
        constant=lambda values: semseg.per_pixel_majority(values, num_classes),
    )


_MSE = Measure(
    metric="mse", higher_is_better=False, score=mean_squared_error,
    constant=lambda values: values.mean(0),
)  # fmt: skip


def of_signal(signal: Signal) -> tuple[Measure, ...]:
    """Measures of a field that `MEASURES` does not name, by the kind of its values."""
    if signal.kind == "classes":
        return (_of_classes("miou", signal.num_classes),)
    return (_of_binary("f1", signal.low, signal.high) if signal.kind == "binary" else _MSE,)


SHAPE_CLASSES = tuple(i for i, name in enumerate(world.CLASSES) if name in world.SHAPES)

_CAPTION = {"higher_is_better": True, "constant": caption_scores.most_frequent_pair}

# Record field -> its measures; the first one is the headline.
MEASURES: Mapping[str, tuple[Measure, ...]] = {
    "depth": (
        Measure(
            metric="mae", higher_is_better=False, unit="m",
            score=depth.mean_absolute_error, constant=depth.per_pixel_mean,
        ),
    ),
    "normal": (
        Measure(
            metric="mean_angular_error_deg", higher_is_better=False,
            score=normal.mean_angular_error_deg, constant=normal.per_pixel_mean,
        ),
    ),
    "semseg": (
        _of_classes("miou", len(world.CLASSES)),
        _of_classes("shapes_miou", len(world.CLASSES), SHAPE_CLASSES),
    ),
    "edge": (_of_binary("edge_f1", 0, 255),),
    "feature": (_MSE,),
    "feature_global": (_MSE,),
    "rgb": (
        Measure(
            metric="psnr", higher_is_better=True, unit="dB", score=image_scores.psnr,
            constant=lambda values: np.rint(values.mean(0)),
        ),
    ),
    "caption": (
        Measure(
            metric="colour_shape_accuracy",
            score=_share(caption_scores.names_a_correct_pair),
            **_CAPTION,
        ),
        Measure(
            metric="all_pairs_accuracy", score=_share(caption_scores.all_pairs_right), **_CAPTION
        ),
    ),
    "det": (
        Measure(
            metric="f1_at_iou_0.5", higher_is_better=True, score=_detection_f1,
            constant=_usual_box,
        ),
    ),
    "color_palette": (
        Measure(
            metric="colour_distance", higher_is_better=False, unit="of 441",
            score=palette_distance,
            constant=lambda values: np.mean([v[:1].mean(0) for v in values], axis=0)[None],
        ),
    ),
    "metadata": (
        Measure(
            metric="mean_bin_error", higher_is_better=False, unit="bins", score=metadata_error,
            constant=_mean_metadata,
        ),
    ),
}  # fmt: skip


# Captions of the digits are right or wrong as a whole.
_DIGITS: Mapping[str, tuple[Measure, ...]] = {
    "caption": (
        Measure(
            metric="exact_match", higher_is_better=True,
            score=_share(lambda predicted, truth: predicted == truth),
            constant=lambda values: max(sorted(set(values)), key=values.count),
        ),
    ),
}  # fmt: skip


def of_family(family: str) -> Mapping[str, tuple[Measure, ...]]:
    """Measures by record field for a family of modalities."""
    return {**MEASURES, **(_DIGITS if family == "digits" else {})}


def constant_predictions(measure: Measure, train: Any, truth: Any) -> Any:
    """The constant prediction for every record of a set, in the shape that `score` takes."""
    constant = measure.constant(train)
    if isinstance(truth, np.ndarray):
        return np.broadcast_to(constant, truth.shape)
    return [constant] * len(truth)
