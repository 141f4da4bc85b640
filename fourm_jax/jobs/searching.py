"""Find records of an index by any condition, and draw those that are nearest."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from fourm_jax.evals import drawing, panels, search
from fourm_jax.evals.drawing import Cell
from fourm_jax.evals.evaluator import Records
from fourm_jax.evals.pictures import Picture
from fourm_jax.evals.search import Hits
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import eval_data
from fourm_jax.jobs.embedding import WEIGHTS, Index
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import weights
from fourm_jax.utils import errors


def find(
    generator: Generator,
    index: Index,
    query: Mapping[str, Any],
    k: int,
    *,
    backend: str = "numpy",
) -> Hits:
    """The records nearest to a query, by the features that the index is made of.

    Args:
      query: conditions of one row, see `generate.conditions.encode`.

    Raises:
      ValueError: an index of other weights than those of `generator`, conditions that the model
        does not read, or as `search.nearest`.
    """
    before = index.about.get(WEIGHTS)
    if before is not None and before != weights.fingerprint(generator.params):
        raise ValueError(
            f"the index is of other weights than {index.about['source']} has now, as after more "
            "training: no query finds its vectors; embed the records again, in another folder"
        )
    for name in query:
        if name not in generator.model.inputs:
            raise ValueError(errors.unknown_value("query", name, generator.model.inputs))
    vectors = generator.features(query, index.about["features"], depth=index.about["depth"])
    return search.nearest(vectors, index.vectors, k, backend=backend)


def draw(generator: Generator, index: Index, query: Mapping[str, Any], hits: Hits) -> Picture:
    """The query, and the nearest records with their cosines, as one picture.

    A record has a word in place of what is drawn if that is bad, unlike what was embedded of it.
    """
    about = index.about
    tokenizers = epath.Path(about["tokenizers"]) if about["tokenizers"] else None
    keys = [index.keys[row] for row in hits.rows[0]]
    count = 1 + max(map(eval_data.number_of, keys))
    described = eval_data.from_description(about["data"], tokenizers)
    data = dataclasses.replace(described, max_left_out_records=count)  # as many as there are
    spec = _shown(generator, data, about["split"], count)
    records = data.read((spec,), about["split"], count)
    place = {key: number for number, key in enumerate(records.keys)}
    paint = drawing.of(spec, reference=records.fields)
    cells: dict[str, Cell] = {f"query: {name}": _text(value) for name, value in query.items()}
    for key, cosine in zip(keys, hits.cosines[0], strict=True):
        cell = _cell(paint, records, spec, place[key]) if key in place else "(cannot be read)"
        cells[f"{key} {cosine:.3f}"] = cell
    return panels.sheet(cells)


def _shown(generator: Generator, data: eval_data.EvalData, split: str, count: int) -> ModalitySpec:
    """The modality that is drawn: pixels where there are some, else the first of the records."""
    every = generator.model.modalities
    pixels = tuple(spec for spec in every if spec.kind == "pixels")
    held: list[ModalitySpec] = []
    for specs in (pixels, every):  # one after the other, as raw records are encoded for it
        names = {name for one in data.datasets(specs, split, count) for name in one.fields}
        held += [spec for spec in specs if spec.name in names]
        if held:
            break
    return held[0]


def _cell(paint: drawing.Draw, records: Records, spec: ModalitySpec, number: int) -> Cell:
    if spec.source in records.fields:
        return paint(records.fields[spec.source][number], None)
    entry = records.tokens[spec.name]
    return np.asarray(entry["pixels"][number]) if "pixels" in entry else "(not kept raw)"


def _text(value: Any) -> Cell:
    is_picture = isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3
    return value if is_picture else str(value)
