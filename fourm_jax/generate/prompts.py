"""Texts as people type them: holes to be filled, and words that the model does not know."""

import difflib
import re
import warnings
from collections.abc import Iterable, Sequence

from fourm_jax.tokenizers.base import SequenceTokenizer

HOLE = re.compile(r"_{3,}")
NUM_LISTED = 60  # words of a small vocabulary; of a larger one the nearest are named
NUM_NEAREST = 3


class ConditionWarning(UserWarning):
    """Something about a condition that its author should know before looking at results."""


def fill_holes(text: str) -> str:
    """Write holes "___" as the sentinels that ask for a span there.

    "a ___ cone left of a ___" -> "a [S_1] cone left of a [S_2]"
    """
    count = 0

    def sentinel(match: re.Match) -> str:
        nonlocal count
        count += 1
        return f" [S_{count}] "

    filled = HOLE.sub(sentinel, text)
    return " ".join(filled.split()) if count else text


def warn_of_strange_words(
    modality: str, texts: Iterable[str], tokenizer: SequenceTokenizer
) -> None:
    """Warn once of all words that the model does not know, and name what it does know."""
    strange = list(dict.fromkeys(word for text in texts for word in tokenizer.strange_words(text)))
    if strange:
        known = tokenizer.words()
        warnings.warn(
            f"{modality}: the model does not know {', '.join(map(repr, strange))}; "
            f"{_what_is_known(strange, known)}",
            ConditionWarning,
            stacklevel=2,
        )


def _what_is_known(strange: Sequence[str], known: Sequence[str]) -> str:
    """All words of a small vocabulary, the nearest ones of a large one."""
    if len(known) <= NUM_LISTED:
        return f"it knows {', '.join(known)}"
    nearest = {
        word: difflib.get_close_matches(word.lower(), known, n=NUM_NEAREST) for word in strange
    }
    hints = [f"{word!r} is near {', '.join(found)}" for word, found in nearest.items() if found]
    return "; ".join([f"it knows {len(known):,} words", *hints])
