"""Contact sheet of a built data set: what its records hold, drawn as training will see it."""

import pathlib
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fourm_jax.data.crops import fields
from fourm_jax.data.storage import shards
from fourm_jax.evals import panels, pictures
from fourm_jax.modalities import boxes
from fourm_jax.modalities.captions import Caption
from fourm_jax.modalities.metadata import Metadata
from fourm_jax.modalities.palette import Palette
from fourm_jax.utils import io

NUM_ROWS = 8
SIDE = panels.CELL - 4


def draw(directory: pathlib.Path, split: str, path: pathlib.Path) -> None:
    """Write a PNG with one row per record, of records spread over the split."""
    reader = shards.Reader(directory, split)
    indices = np.linspace(0, len(reader) - 1, min(NUM_ROWS, len(reader))).astype(int)
    names = [
        name
        for name, field in reader.fields.items()
        if name in fields.FIELDS and field.get("axes") != "c"
    ]
    order = sorted(names, key=lambda name: (name != "rgb", name))
    rows = [row(reader[int(index)], order) for index in indices]
    io.write_bytes(path, pictures.png(np.concatenate(rows)))


def row(record: dict[str, Any], names: list[str]) -> UInt8[np.ndarray, "y x 3"]:
    """One record: its centre crop in every field, an empty cell where it lacks one."""
    size = record["rgb"].shape[:2]
    settings = fields.sample_crops(np.random.default_rng(0), size, 1)
    (view,) = fields.crop_record(record, settings, (SIDE, SIDE), names=names)
    return panels.sheet({name: _shown(name, view[name]) if name in view else "" for name in names})


def _shown(name: str, value: Any) -> Any:
    """The typed form that `panels.panel` draws."""
    if name in _TYPED:
        return _TYPED[name](value)
    return value


_TYPED = {
    "caption": lambda texts: Caption(texts[0]),
    "color_palette": lambda value: Palette(np.array(list(value[0].values())[-1])),
    "metadata": Metadata,
    "det": boxes.from_record,
    "semseg": lambda ids: pictures.classes(ids, int(ids.max()) + 1),
}
