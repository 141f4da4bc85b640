"""Any-to-any grids of held-out records: what was given, predicted, possible and true."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fourm_jax.evals import any_to_any, panels, pictures
from fourm_jax.evals.any_to_any import HeldOut
from fourm_jax.evals.report import Gallery
from fourm_jax.generate.generator import Generator
from fourm_jax.scenes import world

Cell = np.ndarray | str


class Painter:
    """Turns values of record fields into pictures or texts, with one scale for a whole report."""

    def __init__(self, reference: Mapping[str, Any]):
        """Take the scale of depth and the components of the features from `reference` records."""
        if "depth" in reference:
            depth = np.asarray(reference["depth"])
            self._near, self._far = float(np.quantile(depth, 0.01)), float(depth.max())
        if "feature" in reference:
            self._components = pictures.principal_components(np.asarray(reference["feature"]))

    def paint(self, field: str, value: Any, rgb: np.ndarray | None = None) -> Cell:
        """Picture or text of one value of a record field; boxes are drawn over `rgb`."""
        if field == "det" and rgb is not None:
            return pictures.boxes(rgb, np.asarray(value["boxes"]), list(value["classes"]))
        painters: Mapping[str, Callable[[Any], Cell]] = {
            "rgb": lambda v: np.asarray(v, np.uint8),
            "depth": lambda v: pictures.depth(v, self._near, self._far),
            "normal": pictures.normals,
            "semseg": lambda v: pictures.classes(v, len(world.CLASSES)),
            "edge": pictures.grey,
            "feature": lambda v: pictures.features(v, *self._components),
            "feature_global": _vector,
            "color_palette": pictures.swatches,
            "metadata": _numbers,
            "det": lambda v: ", ".join(v["classes"]) or "(none)",
            "caption": lambda v: v or "(empty)",
        }
        return painters.get(field, panels.panel)(value)


def _vector(values: np.ndarray, columns: int = 6) -> np.ndarray:
    """A vector as a square of shades, row by row, ±2 deviations; spare cells are black."""
    shades = np.uint8(np.clip(127.5 + 63.75 * np.asarray(values), 0, 255))
    return pictures.grey(np.pad(shades, (0, -len(shades) % columns)).reshape(-1, columns))


def _numbers(values: Mapping[str, float]) -> str:
    shown = ("num_objects", "brightness", "contrast", "colorfulness", "camera_pitch")
    return ", ".join(f"{name} {values[name]:.0f}" for name in shown if name in values)


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
        name: any_to_any.texts_or_values(generator.spec(name), generated.decoded[name])
        for name in targets
    }
    best = {name: any_to_any.bound(generator, data, generator.spec(name)) for name in targets}
    rows = []
    for number in range(num_records):
        rgb = np.asarray(data.truth["rgb"][number])
        inputs = [
            painter.paint(generator.spec(name).source, _of(data, generator, name, number), rgb)
            for name in conditions
        ]

        def row(label, values, inputs, number=number, rgb=rgb):
            painted = [
                painter.paint(generator.spec(name).source, values(name)[number], rgb)
                for name in targets
            ]
            return (label, [*inputs, *painted])

        rows.append(row(f"{number}: prediction", predicted.get, inputs))
        rows.append(row("tokenizer bound", best.get, [""] * len(inputs)))
        rows.append(
            row("truth", lambda n: data.truth[generator.spec(n).source], [""] * len(inputs))
        )
    return Gallery(
        title=f"From {' and '.join(conditions)} to everything else",
        note="Per record: what the model generates from the inputs on the left, each modality "
        "seeing those generated before it; what the tokenizers make of the truth; the truth. "
        "Boxes are drawn over the true picture. Near is bright in depth; normals show x, y, z as "
        "red, green, blue; features show their first three principal components.",
        columns=["", *(f"{name} (given)" for name in conditions), *targets],
        rows=rows,
    )


def _of(data: HeldOut, generator: Generator, name: str, number: int) -> Any:
    return data.truth[generator.spec(name).source][number]


def sheet(gallery: Gallery, *, num_rows: int = 9, size: int = 96) -> pictures.Picture:
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
                canvas.paste(picture.resize((size, size), Image.NEAREST), place)
    return np.asarray(canvas)
