"""Labeler: captions of a picture from the text file beside it, its name or its folder's."""

import pathlib

from fourm_jax.data import sidecars
from fourm_jax.labelers.base import Labeler, Output


def make_labeler() -> Labeler:
    """Make `caption`, a list of texts; pictures without any have no such field."""

    def label(records):
        found = [
            sidecars.captions(record["path"], pathlib.PurePath(record["file"]).parent)
            for record in records
        ]
        return [{"caption": texts} if texts else {} for texts in found]

    return Labeler(
        name="caption",
        inputs=("file", "path"),
        outputs={"caption": Output()},
        label=label,
        settings={"folders": True},
    )
