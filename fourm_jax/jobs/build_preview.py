"""Contact sheet of a built data set: what its records hold, drawn as training will see it."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fourm_jax.data.crops import fields, settings
from fourm_jax.data.storage import shards
from fourm_jax.evals import drawing, panels, pictures
from fourm_jax.evals.drawing import Cell
from fourm_jax.evals.pictures import Picture
from fourm_jax.modalities import registry, serializers
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
        if name in registry.sources() and field.get("axes") != "c"
    ]
    order = sorted(names, key=lambda name: (name != "rgb", name))
    rows = [row(reader[int(index)], order) for index in indices]
    io.write_bytes(path, pictures.png(np.concatenate(rows)))


def row(record: dict[str, Any], names: list[str]) -> Picture:
    """One record: its centre crop in every field, an empty cell where it lacks one."""
    size = record["rgb"].shape[:2]
    [square] = fields.crop_record(record, settings.centre(size), (SIDE, SIDE), names=names)
    return panels.sheet({name: _cell(name, square) if name in square else "" for name in names})


def _cell(name: str, record: Mapping[str, Any]) -> Cell:
    """One field as it is drawn; a text as it is read back."""
    spec, value = registry.of_source(name), record[name]
    if spec.kind == "sequence":
        form = serializers.get(spec.text_form)
        text = form.serialize(value, np.random.default_rng(0))
        parsed = form.parse(text if isinstance(text, str) else " ".join(text))
        value = form.to_record(parsed.value)
    return drawing.of(spec)(value, record["rgb"])
