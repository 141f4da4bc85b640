"""Named numbers as a line."""

from collections.abc import Mapping

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.pictures import Picture

NUM_SHOWN = 6


def make(scale: Scale) -> Draw:
    """Return the drawing of {name: number}: the first few, and how many more there are."""
    del scale

    def draw(value: Mapping[str, float], picture: Picture | None = None) -> str:
        shown = [f"{name} {number:.4g}" for name, number in list(value.items())[:NUM_SHOWN]]
        rest = len(value) - len(shown)
        return ", ".join([*shown, f"{rest} more"] if rest else shown) or "(none)"

    return draw
