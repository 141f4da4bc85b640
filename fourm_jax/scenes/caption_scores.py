"""Whether a caption names the colours and shapes of a scene."""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fourm_jax.scenes import layout

Pair = tuple[str, str]

_THING = rf"({'|'.join(layout.SIZES)}) ({'|'.join(layout.COLOURS)}) ({'|'.join(layout.SHAPES)})"
_THINGS = re.compile(_THING)
_RELATION = re.compile(rf"{_THING} (left of|right of|in front of|behind) a {_THING}")
_PAIR = re.compile(rf"\b({'|'.join(layout.COLOURS)}) ({'|'.join(layout.SHAPES)})\b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thing:
    """One object as a caption names it."""

    size: str
    colour: str
    shape: str


def things(text: str) -> list[Thing]:
    """All objects that a caption names in full, in its order.

    >>> things("a large red sphere left of a small blue box")
    [Thing(size="large", colour="red", shape="sphere"), Thing(size="small", ...)]
    """
    return [
        Thing(size=size, colour=colour, shape=shape)
        for size, colour, shape in _THINGS.findall(" ".join(text.lower().split()))
    ]


def relations(text: str) -> list[tuple[Thing, str, Thing]]:
    """Pairs of objects and how the first stands to the second, e.g. "left of"."""
    found = _RELATION.findall(" ".join(text.lower().split()))
    return [
        (
            Thing(size=words[0], colour=words[1], shape=words[2]),
            words[3],
            Thing(size=words[4], colour=words[5], shape=words[6]),
        )
        for words in found
    ]


def colour_shape_pairs(text: str) -> set[Pair]:
    """Find each colour word directly before a shape word.

    >>> colour_shape_pairs("a large red sphere left of a small blue box")
    {("red", "sphere"), ("blue", "box")}
    """
    return set(_PAIR.findall(" ".join(text.lower().split())))


def named_colours(text: str) -> set[str]:
    """Colours of all pairs in a caption."""
    return {colour for colour, _ in colour_shape_pairs(text)}


def names_a_correct_pair(predicted: str, truth: str) -> bool:
    """Whether a predicted caption names at least one colour-shape pair of the true caption."""
    return bool(colour_shape_pairs(predicted) & colour_shape_pairs(truth))


def all_pairs_right(predicted: str, truth: str) -> bool:
    """Whether a predicted caption names all true colour-shape pairs and no other."""
    return colour_shape_pairs(predicted) == colour_shape_pairs(truth)


def most_frequent_pair(captions: Iterable[str]) -> str:
    """Constant predictor: the pair in most captions of a training set, as text ("red sphere").

    Raises:
      ValueError: if no caption names a pair.
    """
    counts = collections.Counter(pair for text in captions for pair in colour_shape_pairs(text))
    if not counts:
        raise ValueError("no caption with a colour and a shape, e.g. 'a red sphere'")
    best = max(counts.items(), key=lambda item: (item[1], item[0]))[0]
    return " ".join(best)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairAccuracy:
    """Share of captions that are right about their pairs (an `evals.measure.Measure`)."""

    metric: str
    right: Callable[[str, str], bool]
    unit: str = ""
    higher_is_better: bool = True

    def score(self, predicted: Sequence[str], truth: Sequence[str]) -> float:
        """Share over the set, 0..1."""
        return float(np.mean([self.right(p, t) for p, t in zip(predicted, truth, strict=True)]))

    def constant(self, values: Iterable[str]) -> str:
        """The most frequent pair."""
        return most_frequent_pair(values)


ANY_PAIR = PairAccuracy(metric="colour_shape_accuracy", right=names_a_correct_pair)
ALL_PAIRS = PairAccuracy(metric="all_pairs_accuracy", right=all_pairs_right)
