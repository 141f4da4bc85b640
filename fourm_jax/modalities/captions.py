"""Captions: free text, one or several per picture, chosen by crop or at random.

Source: docs/published.md#modalities.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from fourm_jax.modalities import coordinates
from fourm_jax.modalities.grammar import Grammar
from fourm_jax.modalities.parsed import Dropped, Parsed

# Of modalities in this form, see `serializers.Serializer`.
CROP, MEASURE, PICTURE = "text", ("exact_match",), "text"
GRAMMAR = Grammar(begin=("word", "end"), word=("word", "end"))
_CONTROL = re.compile(r"\[(?:UNK|SOS|S_[0-9]+)\]")


@dataclasses.dataclass(frozen=True)
class Caption:
    """One caption."""

    text: str

    def to_text(self) -> str:
        """The caption as it is; the text tokenizer lowercases it."""
        return self.text

    @classmethod
    def from_text(cls, text: str) -> Parsed:
        """Read generated text: words up to the first [EOS]; control and coordinate tokens go.

        Returns:
          Parsed with a `Caption`.
        """
        kept, dropped = [], []
        for word in coordinates.split(text):
            if word.axis >= 0 or _CONTROL.fullmatch(word.text):
                dropped.append(Dropped(word.text, "no word"))
            else:
                kept.append(word)
        return Parsed(cls(coordinates.join(kept)), tuple(dropped))


def select(value: Any, index: int | None = None, rng: np.random.Generator | None = None) -> Caption:
    """Choose one caption of a record field.

    Args:
      value: str, `Caption`, {"caption": str}, or a list of these.
      index: which one of a list, e.g. the crop that it describes; None draws one with `rng`.
      rng: for lists without index.

    Raises:
      ValueError: another type, an empty list, an index outside it, or a list with neither.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        if index is None and len(value) == 1:
            index = 0
        if index is None and rng is not None and len(value) > 1:
            index = int(rng.integers(len(value)))
        if index is None or not 0 <= index < len(value):
            raise ValueError(
                f"caption {index} of {len(value)}, allowed: 0..{len(value) - 1}, or None and an rng"
            )
        value = value[index]
    if isinstance(value, Mapping) and "caption" in value:
        value = value["caption"]
    if isinstance(value, Caption):
        return value
    if isinstance(value, str):
        return Caption(value)
    raise ValueError(
        f"caption of type {type(value).__name__}, allowed: str, a mapping with key caption, "
        f"or a list of these"
    )


def select_embedding(
    embeddings: Float[np.ndarray, "n l e"], valid: Shaped[np.ndarray, "n l"], index: int = 0
) -> Float[np.ndarray, "k e"]:
    """Valid vectors of one of several embedded captions (T5); `valid` is bool, or 0 and 1."""
    if not 0 <= index < len(embeddings):
        raise ValueError(f"caption embedding {index}, allowed: 0..{len(embeddings) - 1}")
    return embeddings[index][np.asarray(valid[index], bool)]


def count_changes(value: Any) -> coordinates.Changes:
    """None: a caption has no numbers."""
    return coordinates.Changes()


def serialize(value: Any, rng: np.random.Generator | None = None) -> str:
    """Text of a record field; a list of captions needs an `rng` to choose one."""
    return select(value, rng=rng).to_text()


def every(value: Any) -> list[str]:
    """All captions of a record field, which holds one or a list of them."""
    several = value if isinstance(value, list | tuple) else [value]
    return [serialize(one) for one in several]


def as_record(value: Any) -> str | list[str]:
    """The text of a record field; of several captions all of them."""
    texts = every(value)
    return texts[0] if len(texts) == 1 else texts


def parse(text: str) -> Parsed:
    """Read generated text into a `Caption`."""
    return Caption.from_text(text)


def to_record(value: Caption) -> str:
    """The text."""
    return value.text
