"""Named numbers, a line each."""

from collections.abc import Mapping

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.pictures import Picture


def make(scale: Scale) -> Draw:
    """Return the drawing of {name: number}, one line each."""
    del scale

    def draw(value: Mapping[str, float], picture: Picture | None = None) -> str:
        return "\n".join(f"{name} {number:.4g}" for name, number in value.items()) or "(none)"

    return draw
