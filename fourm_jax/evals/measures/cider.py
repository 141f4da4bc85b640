"""CIDEr-D of captions: n-grams that agree, weighted by how rare they are (Vedantam et al. 2015)."""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from fourm_jax.evals.measures import bleu
from fourm_jax.tokenizers.signal import Signal

ORDERS = 4
SIGMA = 6.0  # of the penalty on a difference in length
Grams = Mapping[tuple[str, ...], int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cider:
    """Mean over captions, 0..10; rarity is that among the true captions of the set."""

    metric: str = "cider"
    unit: str = ""
    higher_is_better: bool = True

    def score(self, predicted: Sequence[str], truth: Sequence[str | Sequence[str]]) -> float:
        """Over the set; a truth may be several references."""
        return self.total(self.parts(predicted, truth))

    def parts(self, predicted: Sequence[str], truth: Sequence[str | Sequence[str]]) -> list[float]:
        """The number of every caption."""
        real = [[_grams(text) for text in bleu.references(one)] for one in truth]
        documents = collections.Counter(
            gram for texts in real for gram in {gram for text in texts for gram in text}
        )
        rarity = {gram: math.log(len(real) / count) for gram, count in documents.items()}
        unseen = math.log(max(len(real), 1))
        return [
            10 * float(np.mean([_similarity(_grams(p), text, rarity, unseen) for text in texts]))
            for p, texts in zip(predicted, real, strict=True)
        ]

    def total(self, parts: Sequence[float]) -> float:
        """Mean over captions."""
        return float(np.mean(parts))

    def constant(self, values: Sequence[str | Sequence[str]]) -> str:
        """The most frequent text."""
        return bleu.Bleu().constant(values)


def make(signal: Signal | None) -> Cider:
    """Return the measure."""
    del signal
    return Cider()


def _grams(text: str) -> Grams:
    tokens = bleu.words(text)
    found: collections.Counter[tuple[str, ...]] = collections.Counter()
    for order in range(1, ORDERS + 1):
        found += bleu.ngrams(tokens, order)
    return found


def _similarity(
    predicted: Grams, truth: Grams, rarity: Mapping[tuple[str, ...], float], unseen: float
) -> float:
    """Mean over the orders of the clipped cosine of weighted counts, with the length penalty."""
    found = []
    for order in range(1, ORDERS + 1):
        own, real = (
            {g: n * rarity.get(g, unseen) for g, n in grams.items() if len(g) == order}
            for grams in (predicted, truth)
        )
        norms = [math.sqrt(sum(v * v for v in vector.values())) for vector in (own, real)]
        dot = sum(min(own.get(g, 0.0), value) * value for g, value in real.items())
        found.append(dot / (norms[0] * norms[1]) if all(norms) else 0.0)
    lengths = [sum(n for g, n in grams.items() if len(g) == 1) for grams in (predicted, truth)]
    penalty = math.exp(-((lengths[0] - lengths[1]) ** 2) / (2 * SIGMA**2))
    return penalty * sum(found) / ORDERS
