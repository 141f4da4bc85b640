"""Any-to-any grids of held-out records: what was given, predicted, possible and true."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fourm_jax.evals import any_to_any, drawing
from fourm_jax.evals.any_to_any import HeldOut
from fourm_jax.evals.drawing import Cell
from fourm_jax.evals.pictures import Picture
from fourm_jax.evals.report import Gallery
from fourm_jax.generate.generator import Generator


class Painter:
    """Draws values of the modalities of a model, with one scale for a whole report."""

    def __init__(self, generator: Generator, reference: Mapping[str, Any]) -> None:
        """Take ranges and components from the fields of `reference` records."""
        self._draw = {
            spec.name: drawing.of(
                spec, signal=any_to_any.signal_of(generator, spec), reference=reference
            )
            for spec in generator.model.modalities
        }

    def paint(self, name: str, value: Any, picture: Picture | None = None) -> Cell:
        """Picture or text of one value of a modality, of a record that looks like `picture`."""
        return self._draw[name](value, picture)


def any_to_any_gallery(
    generator: Generator,
    data: HeldOut,
    painter: Painter,
    conditions: Sequence[str],
    *,
    num_records: int,
    num_steps: int = 8,
    guidance: float = 2.0,
    seed: int = 0,
) -> Gallery:
    """Generate everything else from `conditions` for the first held-out records.

    Unlike the metrics, targets are generated one after the other here, each seeing those before.
    """
    given = {
        name: {key: value[:num_records] for key, value in data.tokens[name].items()}
        for name in conditions
    }
    # The picture behind pixel inputs is not worth predicting again.
    sources = {generator.spec(name).source for name in conditions}
    targets = [n for n in generator.model.outputs if generator.spec(n).source not in sources]
    targets.sort(key=lambda name: generator.spec(name).decoding_order)
    generated = generator.generate(
        given, targets, num_steps=num_steps, guidance=guidance, seed=seed
    )
    predicted = {
        name: any_to_any.record_values(generator.spec(name), generated.decoded[name])
        for name in targets
    }
    best = {name: any_to_any.bound(generator, data, generator.spec(name)) for name in targets}
    truth = {name: data.truth[generator.spec(name).source] for name in (*conditions, *targets)}
    rows = []
    for number in range(num_records):
        picture = _picture(generator, data, number)
        inputs = [painter.paint(name, truth[name][number], picture) for name in conditions]
        blank = [""] * len(inputs)
        for label, values, before in (
            (f"{number}: prediction", predicted, inputs),
            ("tokenizer bound", best, blank),
            ("truth", truth, blank),
        ):
            cells = [painter.paint(name, values[name][number], picture) for name in targets]
            rows.append((label, [*before, *cells]))
    return Gallery(
        title=f"From {' and '.join(conditions)} to everything else",
        note="Per record: what the model generates from the inputs on the left, each modality "
        "seeing those generated before it; what the tokenizers make of the truth; the truth. "
        "Boxes are drawn over the true picture. Near is bright in depth; normals show x, y, z as "
        "red, green, blue; features show their first three principal components.",
        columns=["", *(f"{name} (given)" for name in conditions), *targets],
        rows=rows,
    )


def _picture(generator: Generator, data: HeldOut, number: int) -> Picture | None:
    """The pixels of a record, over which boxes are drawn; None for a model without pixels."""
    for spec in generator.model.modalities:
        if spec.kind == "pixels":
            return np.asarray(data.truth[spec.source][number])
    return None


def sheet(gallery: Gallery, *, num_rows: int = 9, size: int = 96) -> Picture:
    """The pictures of the first rows of a gallery as one image, under the names of their columns.

    Args:
      num_rows: rows of the gallery that are drawn; texts are left out.
      size: pixels of each picture, scaled up without smoothing.
    """
    rows, label_width, gap = gallery.rows[:num_rows], 110, 3
    columns = [
        index
        for index in range(len(gallery.columns) - 1)
        if any(isinstance(cells[index], np.ndarray) for _, cells in rows)
    ]
    step = size + gap
    canvas = Image.new("RGB", (label_width + step * len(columns), 16 + step * len(rows)), "white")
    pen = ImageDraw.Draw(canvas)
    for column, index in enumerate(columns):
        pen.text((label_width + step * column, 2), gallery.columns[index + 1][:16], fill="black")
    for row, (label, cells) in enumerate(rows):
        pen.text((2, 16 + step * row + size // 2 - 6), label, fill="black")
        for column, index in enumerate(columns):
            if isinstance(cells[index], np.ndarray):
                picture = Image.fromarray(np.ascontiguousarray(cells[index]))
                place = (label_width + step * column, 16 + step * row)
                canvas.paste(picture.resize((size, size), Image.Resampling.NEAREST), place)
    return np.asarray(canvas)
