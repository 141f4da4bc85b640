"""A text as it is."""

from typing import Any

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.pictures import Picture


def make(scale: Scale) -> Draw:
    """Return the drawing of texts, and of all that has no other."""
    del scale

    def draw(value: Any, picture: Picture | None = None) -> str:
        return str(value) or "(empty)"

    return draw
