"""What a parser of generated text returns: the valid part, and what was dropped and why."""

import dataclasses
from typing import Any, NamedTuple


class Dropped(NamedTuple):
    """A piece of text that carries nothing valid."""

    text: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Parsed:
    """Result of reading text that a model wrote; parsers return this and never raise on text.

    Attributes:
      value: what is valid, of the type that the module builds (`Boxes`, `Palette`, ...).
      dropped: the rest, in the order of the text; empty when all of it was understood.
    """

    value: Any
    dropped: tuple[Dropped, ...] = ()
