"""Labeler: captions of a picture from the text file beside it, or from its name."""

from fourm_jax.data import sidecars
from fourm_jax.labelers.base import Labeler, Output


def make_labeler() -> Labeler:
    """Make `caption`, a list of texts; pictures without any have no such field."""

    def label(records):
        found = [sidecars.captions(record["path"]) for record in records]
        return [{"caption": texts} if texts else {} for texts in found]

    return Labeler(name="caption", inputs=("path",), outputs={"caption": Output()}, label=label)
