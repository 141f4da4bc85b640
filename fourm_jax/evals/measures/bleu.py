"""BLEU-4 of captions over a whole set (Papineni et al. 2002), without smoothing."""

import collections
import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fourm_jax.tokenizers.signal import Signal

ORDERS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bleu:
    """Geometric mean of the precisions of 1- to 4-grams, times the brevity penalty; 0..1."""

    metric: str = "bleu4"
    unit: str = ""
    higher_is_better: bool = True

    def score(self, predicted: Sequence[str], truth: Sequence[str | Sequence[str]]) -> float:
        """Over the set; a truth may be several references."""
        return self.total(self.parts(predicted, truth))

    def parts(
        self, predicted: Sequence[str], truth: Sequence[str | Sequence[str]]
    ) -> list[Float[np.ndarray, "10"]]:
        """Hits and numbers of n-grams, length and nearest reference length, of every caption."""
        return [_counts(p, references(t)) for p, t in zip(predicted, truth, strict=True)]

    def total(self, parts: Sequence[Float[np.ndarray, "10"]]) -> float:
        """The number over captions."""
        sums = np.sum(parts, axis=0)
        hits, numbers, (length, nearest) = sums[:ORDERS], sums[ORDERS:-2], sums[-2:]
        if not hits.all():
            return 0.0
        brevity = min(0.0, 1 - nearest / length)
        return math.exp(brevity + float(np.mean(np.log(hits / numbers))))

    def constant(self, values: Sequence[str | Sequence[str]]) -> str:
        """The most frequent text."""
        texts = collections.Counter(text for value in values for text in references(value))
        return max(sorted(texts), key=texts.__getitem__)


def make(signal: Signal | None) -> Bleu:
    """Return the measure."""
    del signal
    return Bleu()


def words(text: str) -> list[str]:
    """Lower-case words, without punctuation."""
    return re.findall(r"\w+", text.lower())


def references(truth: str | Sequence[str]) -> list[str]:
    """The true captions of one picture."""
    return [truth] if isinstance(truth, str) else list(truth)


def ngrams(tokens: Sequence[str], order: int) -> collections.Counter[tuple[str, ...]]:
    """How often each n-gram of one order occurs."""
    return collections.Counter(
        tuple(tokens[at : at + order]) for at in range(len(tokens) - order + 1)
    )


def _counts(predicted: str, truth: Sequence[str]) -> Float[np.ndarray, "10"]:
    own, real = words(predicted), [words(text) for text in truth]
    hits, numbers = [], []
    for order in range(1, ORDERS + 1):
        found, most = ngrams(own, order), collections.Counter[tuple[str, ...]]()
        for text in real:
            most |= ngrams(text, order)
        hits.append((found & most).total())
        numbers.append(found.total())
    nearest = min((len(text) for text in real), key=lambda size: (abs(size - len(own)), size))
    return np.array([*hits, *numbers, len(own), nearest], np.float64)
