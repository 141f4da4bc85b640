"""Serializers: the modules here that write raw record fields as text and read text back."""

from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from fourm_jax import modalities
from fourm_jax.modalities.coordinates import Changes
from fourm_jax.modalities.grammar import Grammar
from fourm_jax.modalities.parsed import Parsed
from fourm_jax.utils import modules

PLAIN = "captions"  # what a text is where its modality says nothing


@runtime_checkable
class Serializer(Protocol):
    """What such a module offers; its name is the name of the text form.

    It may also have a `GRAMMAR`, which generated texts then follow, and where a raw record field
    has several forms `as_record(value)`, which gives the one of `to_record`.

    Attributes:
      CROP, MEASURE, PICTURE: what `ModalitySpec.crop`, `.measure` and `.picture` are for modalities
        of this form, unless they say otherwise.
    """

    CROP: str
    MEASURE: tuple[str, ...]
    PICTURE: str

    def serialize(self, value: Any, rng: np.random.Generator | None = None) -> str | list[str]:
        """Text of a raw record field; a list holds its chunks, which read the same when joined
        by single spaces (masking keeps or hides a chunk as a whole if the modality says so)."""
        ...

    def count_changes(self, value: Any) -> Changes:
        """What `serialize` clips or leaves out of a raw record field; ValueError for a number that
        lies further outside of its range."""
        ...

    def parse(self, text: str) -> Parsed:
        """Typed value of generated text; never raises on text."""
        ...

    def to_record(self, value: Any) -> Any:
        """What a raw record field holds for a typed value that `parse` returns."""
        ...


def get(name: str) -> Serializer:
    """Serializer of a text form (`ModalitySpec.text_form`).

    Raises:
      ValueError: there is none (names the nearest and all there are).
    """
    return cast(Serializer, modules.get(modalities, "serialize", name, "text form"))


def grammar(name: str) -> Grammar | None:
    """What may follow what in the texts of a form; None: the form does not say."""
    return getattr(get(name), "GRAMMAR", None)


def as_record(name: str, value: Any) -> Any:
    """A raw record field as `to_record` of its text form gives it, to compare and to draw.

    Raises:
      ValueError: none of the forms that the field may have.
    """
    convert = getattr(get(name), "as_record", None)
    return convert(value) if convert else value


def names() -> list[str]:
    """Names of all text forms."""
    return sorted(modules.offering(modalities, "serialize"))
