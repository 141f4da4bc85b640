"""Which module writes and reads the text of which record field: nobody else writes such text."""

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fourm_jax.modalities.parsed import Parsed
from fourm_jax.utils import errors

# Record field -> module of this package.
MODULES: Mapping[str, str] = {
    "caption": "captions",
    "det": "boxes",
    "color_palette": "palette",
    "metadata": "metadata",
    "human_poses": "poses",
    "sam_instance": "instances",
}


@runtime_checkable
class Serializer(Protocol):
    """What such a module offers."""

    def serialize(self, value: Any, rng: np.random.Generator | None = None) -> str | list[str]:
        """Text of a raw record field; a list holds its chunks, which read the same when joined
        by single spaces (masking keeps or hides a chunk as a whole if the modality says so)."""
        ...

    def parse(self, text: str) -> Parsed:
        """Typed value of generated text; never raises on text."""
        ...


def get(source: str) -> Serializer:
    """Serializer of a record field (`ModalitySpec.source`).

    Raises:
      ValueError: a field without text form (names the nearest and all allowed).
    """
    if source not in MODULES:
        raise ValueError(errors.unknown_value("text-like record field", source, MODULES))
    return importlib.import_module(f"fourm_jax.modalities.{MODULES[source]}")
