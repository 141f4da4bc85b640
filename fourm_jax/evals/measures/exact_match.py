"""Share of texts that are right as a whole, read against the most frequent text."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fourm_jax.evals.measures import bleu
from fourm_jax.tokenizers.signal import Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactMatch:
    """Share of predictions whose words are those of the truth, or of one of several.

    Case and punctuation do not count: no text comes out of a tokenizer with the capitals and the
    spaces that went in.
    """

    metric: str = "exact_match"
    unit: str = ""
    higher_is_better: bool = True

    def score(self, predicted: Sequence[str], truth: Sequence[str | Sequence[str]]) -> float:
        """Share over the set, 0..1."""
        pairs = zip(predicted, truth, strict=True)
        right = [bleu.words(p) in map(bleu.words, bleu.references(t)) for p, t in pairs]
        return float(np.mean(right))

    def constant(self, values: Sequence[str | Sequence[str]]) -> str:
        """The most frequent text."""
        return bleu.Bleu().constant(values)


def make(signal: Signal | None) -> ExactMatch:
    """Return the measure."""
    del signal
    return ExactMatch()
