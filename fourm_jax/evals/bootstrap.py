"""How far a number of a set would move with another set of as many examples."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int, Shaped

NUM_RESAMPLES = 200
LEVEL = 0.95


def interval(
    score: Callable[[Int[np.ndarray, "n"]], float],
    num_examples: int,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """The central 95 % of the scores of sets that are drawn from the examples with replacement.

    Source: the percentile method, Efron and Tibshirani 1993. Scores that are not finite (a class
    that no drawn example has) do not count.

    Args:
      score: number of the examples with these row numbers.
    """
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(0, num_examples, num_examples) for _ in range(num_resamples))
    scores = np.array([score(rows) for rows in drawn], np.float64)
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return float("nan"), float("nan")
    low, high = np.quantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def of_mean(values: Shaped[np.ndarray, "n"]) -> tuple[float, float]:
    """The interval of the mean of one number (or truth) per example."""
    return interval(lambda rows: float(values[rows].mean()), len(values))


def overlap(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether two intervals share a number."""
    return first[0] <= second[1] and second[0] <= first[1]
