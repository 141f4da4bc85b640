"""Share of texts that are right as a whole, read against the most frequent text."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fourm_jax.tokenizers.signal import Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactMatch:
    """Share of predictions that equal the truth."""

    metric: str = "exact_match"
    unit: str = ""
    higher_is_better: bool = True

    def score(self, predicted: Sequence[str], truth: Sequence[str]) -> float:
        """Share over the set, 0..1."""
        return float(np.mean([p == t for p, t in zip(predicted, truth, strict=True)]))

    def constant(self, values: Sequence[str]) -> str:
        """The most frequent text."""
        return max(sorted(set(values)), key=list(values).count)


def make(signal: Signal | None) -> ExactMatch:
    """Return the measure."""
    del signal
    return ExactMatch()
