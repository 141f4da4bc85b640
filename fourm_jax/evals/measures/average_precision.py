"""Average precision of detections, as COCO computes it (cocoeval.py of pycocotools).

Detections are matched in the order of their scores, each to the free true object of its class that
it overlaps most; precision is read at 101 recalls, then averaged over thresholds and classes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100  # detections of a class that count in a picture


class Matches(NamedTuple):
    """What one picture says about one class: `hit[t, k]` whether detection k is right at t."""

    scores: Float[np.ndarray, "k"]
    hit: Bool[np.ndarray, "t k"]
    num_true: int


def check_threshold(threshold: float) -> None:
    """Check that detections are matched at one of `THRESHOLDS`, or at all of them (0).

    Raises:
      ValueError: they are not; the nearest one would be another number under this name.
    """
    if threshold and not np.isclose(THRESHOLDS, threshold, rtol=0, atol=1e-9).any():
        allowed = ", ".join(f"{one:g}" for one in THRESHOLDS)
        raise ValueError(f"threshold {threshold:g} of average precision, allowed: 0, {allowed}")


def match(overlaps: Float[np.ndarray, "k m"], scores: Float[np.ndarray, "k"]) -> Matches:
    """Match the detections of one class in one picture to its true objects, at all thresholds."""
    order = np.argsort(-scores, kind="stable")[:MOST]
    overlaps, scores = overlaps[order], scores[order]
    hit = np.zeros((len(THRESHOLDS), len(order)), bool)
    for row, threshold in enumerate(THRESHOLDS):
        free = np.ones(overlaps.shape[1], bool)
        for number, own in enumerate(overlaps):
            allowed = np.where(free, own, -1.0)
            # of equal overlaps the last one, as there
            best = len(own) - 1 - int(np.argmax(allowed[::-1])) if len(own) else -1
            if best >= 0 and allowed[best] >= min(threshold, 1 - 1e-10):
                hit[row, number] = True
                free[best] = False
    return Matches(scores, hit, overlaps.shape[1])


def per_picture(
    overlap: Any, predicted: Sequence[Any], truth: Sequence[Any]
) -> list[dict[str, Matches]]:
    """{class: matches} of every picture.

    Args:
      overlap: (a prediction, a truth) -> [k, m].
      predicted, truth: {"classes": names, "scores" of predictions, …}; without scores the order
        counts: the first is the surest.

    Raises:
      ValueError: another number of predictions than of pictures.
    """
    if len(predicted) != len(truth):
        raise ValueError(f"{len(predicted)} predictions for {len(truth)} pictures")
    rows = []
    for guess, real in zip(predicted, truth, strict=True):
        found, there = np.array(guess["classes"], object), np.array(real["classes"], object)
        scores = np.asarray(guess.get("scores", -np.arange(len(found))), np.float64)
        all_overlaps = overlap(guess, real)
        rows.append(
            {
                name: match(
                    all_overlaps[np.ix_(found == name, there == name)], scores[found == name]
                )
                for name in {*found.tolist(), *there.tolist()}
            }
        )
    return rows


def mean(parts: Sequence[dict[str, Matches]], threshold: float | None = None) -> float:
    """Mean over thresholds (or at one) and the classes that have a true object; nan without any."""
    rows = slice(None) if threshold is None else [int(np.argmin(abs(THRESHOLDS - threshold)))]
    found = [ap[rows].mean() for ap in by_class(parts).values()]
    return float(np.mean(found)) if found else float("nan")


def by_class(parts: Sequence[dict[str, Matches]]) -> dict[str, Float[np.ndarray, "t"]]:
    """Average precision at every threshold, of the classes that have a true object."""
    names = sorted({name for part in parts for name in part})
    found = {}
    for name in names:
        own = [part[name] for part in parts if name in part]
        num_true = sum(one.num_true for one in own)
        if num_true:
            scores = np.concatenate([one.scores for one in own])
            hit = np.concatenate([one.hit for one in own], axis=1)
            order = np.argsort(-scores, kind="mergesort")
            found[name] = np.array([_interpolated(row[order], num_true) for row in hit])
    return found


def _interpolated(hit: Bool[np.ndarray, "k"], num_true: int) -> float:
    """Mean of the best precision from each of 101 recalls on."""
    right = np.cumsum(hit)
    recall = right / num_true
    precision = right / np.maximum(np.arange(1, len(hit) + 1), np.finfo(np.float64).eps)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    return float(np.mean([best[place] if place < len(best) else 0.0 for place in places]))
