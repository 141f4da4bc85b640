"""For every kind of signal: how wrong a prediction is, and what knowing nothing would score."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fourm_jax.data import scenes
from fourm_jax.evals import boxes, caption, depth, image, normal, semseg
from fourm_jax.modalities import metadata as metadata_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """How predictions of one record field are judged.

    Attributes:
      metric: name of the number.
      higher_is_better: its direction.
      score: (predictions, truths) of a whole set -> number.
      constant: values of a training set -> the one prediction that ignores the input.
    """

    metric: str
    higher_is_better: bool
    score: Callable[[Any, Any], float]
    constant: Callable[[Any], Any]


def binary_f1(predicted: np.ndarray, truth: np.ndarray) -> float:
    """F1 of the pixels that are on (uint8 > 127), counted over the set; 0..1."""
    shown, wanted = np.asarray(predicted) > 127, np.asarray(truth) > 127
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


def _mean_iou(classes: Sequence[int] | None) -> Callable[[Any, Any], float]:
    def score(predicted, truth):
        predicted = np.broadcast_to(predicted, truth.shape)
        count = semseg.confusion(predicted, truth, len(scenes.CLASSES))
        return semseg.mean_iou(count, classes)

    return score


def _share(right: Callable[[str, str], bool]) -> Callable[[Any, Any], float]:
    def score(predicted, truth):
        return float(np.mean([right(p, t) for p, t in zip(predicted, truth, strict=True)]))

    return score


def _likely_edges(values: np.ndarray) -> np.ndarray:
    """The map of likely pixels with the best F1 on the training set."""
    share = np.mean(values > 127, axis=0)
    maps = [np.where(share >= cut, 255, 0) for cut in np.quantile(share, np.linspace(0, 0.9, 10))]
    return max(maps, key=lambda shown: binary_f1(np.broadcast_to(shown, values.shape), values))


def _majority(values: np.ndarray) -> np.ndarray:
    return semseg.per_pixel_majority(values, len(scenes.CLASSES))


SHAPE_CLASSES = tuple(i for i, name in enumerate(scenes.CLASSES) if name in scenes.SHAPES)

_CAPTION = {"higher_is_better": True, "constant": caption.most_frequent_pair}
_SEMSEG = {"higher_is_better": True, "constant": _majority}

# Record field -> its measures; the first one is the headline.
MEASURES: Mapping[str, tuple[Measure, ...]] = {
    "depth": (
        Measure(
            metric="mae", higher_is_better=False,
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
        Measure(metric="miou", score=_mean_iou(None), **_SEMSEG),
        Measure(metric="shapes_miou", score=_mean_iou(SHAPE_CLASSES), **_SEMSEG),
    ),
    "edge": (
        Measure(
            metric="edge_f1", higher_is_better=True, score=binary_f1,
            constant=_likely_edges,
        ),
    ),
    "feature": (
        Measure(
            metric="mse", higher_is_better=False, score=mean_squared_error,
            constant=lambda values: values.mean(0),
        ),
    ),
    "feature_global": (
        Measure(
            metric="mse", higher_is_better=False, score=mean_squared_error,
            constant=lambda values: values.mean(0),
        ),
    ),
    "rgb": (
        Measure(
            metric="psnr", higher_is_better=True, score=image.psnr,
            constant=lambda values: np.rint(values.mean(0)),
        ),
    ),
    "caption": (
        Measure(
            metric="colour_shape_accuracy", score=_share(caption.names_a_correct_pair), **_CAPTION
        ),
        Measure(
            metric="all_pairs_accuracy", score=_share(caption.all_pairs_right), **_CAPTION
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
            metric="colour_distance", higher_is_better=False, score=palette_distance,
            constant=lambda values: np.mean([v[:1].mean(0) for v in values], axis=0)[None],
        ),
    ),
    "metadata": (
        Measure(
            metric="mean_bin_error", higher_is_better=False, score=metadata_error,
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
