"""Any-to-any grids of held-out records: what was given, predicted, possible and true."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from fourm_jax.evals import any_to_any, drawing, panels
from fourm_jax.evals.any_to_any import HeldOut
from fourm_jax.evals.drawing import Cell
from fourm_jax.evals.pictures import Picture
from fourm_jax.evals.report import Gallery
from fourm_jax.generate.generator import Generator


class Painter:
    """Draws values of the modalities of a model, with one scale for a whole report."""

    def __init__(self, generator: Generator, reference: Mapping[str, Any]) -> None:
        """Take ranges and components from the fields of `reference` records."""
        self._generator, self._reference = generator, reference
        self._draw = {
            spec.name: drawing.of(
                spec, signal=any_to_any.signal_of(generator, spec), reference=reference
            )
            for spec in generator.model.modalities
        }

    def paint(self, name: str, value: Any, picture: Picture | None = None) -> Cell:
        """Picture or text of one value of a modality, of a record that looks like `picture`."""
        return self._draw[name](value, picture)

    def legend(self, name: str, value: Any) -> Cell:
        """What the colours of a modality's drawings mean, "" where that needs no words."""
        spec = self._generator.spec(name)
        signal = any_to_any.signal_of(self._generator, spec)
        return drawing.legend(spec, value, signal=signal, reference=self._reference)


def choose(num_records: int, num_shown: int, seed: int) -> Int[np.ndarray, "k"]:
    """Numbers of the records that are shown: drawn without looking at them, in their order."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(num_records, size=min(num_shown, num_records), replace=False))


def any_to_any_gallery(
    generator: Generator,
    data: HeldOut,
    painter: Painter,
    conditions: Sequence[str],
    *,
    num_records: int,
    seed: int = 0,
) -> Gallery:
    """Generate everything else from `conditions` for held-out records drawn at random.

    Unlike the metrics, targets are generated one after the other here, each seeing those before.
    """
    chosen = choose(len(data), num_records, seed)
    given = {
        name: {key: np.asarray(value)[chosen] for key, value in data.tokens[name].items()}
        for name in conditions
    }
    # The picture behind pixel inputs is not worth predicting again.
    sources = {generator.spec(name).source for name in conditions}
    targets = [n for n in generator.model.outputs if generator.spec(n).source not in sources]
    targets.sort(key=lambda name: generator.spec(name).decoding_order)
    generated = generator.of_few_programs().generate(given, targets, seed=seed)
    predicted = {
        name: any_to_any.record_values(generator.spec(name), generated.decoded[name])
        for name in targets
    }
    shown = data.rows(chosen)
    best = {name: any_to_any.bound(generator, shown, generator.spec(name)) for name in targets}
    truth = {name: shown.truth[generator.spec(name).source] for name in (*conditions, *targets)}
    rows = []
    for number, record in enumerate(chosen):
        true_picture = picture_of(generator, truth, number)
        inputs = [painter.paint(name, truth[name][number], true_picture) for name in conditions]
        blank = [""] * len(inputs)
        for label, values, before in (
            (f"{record}: prediction", predicted, inputs),
            ("tokenizer bound", best, blank),
            ("truth", truth, blank),
        ):
            # What stands on a picture is drawn on the one of its own row, else on the one given.
            picture = picture_of(generator, values, number)
            picture = true_picture if picture is None else picture
            cells = [painter.paint(name, values[name][number], picture) for name in targets]
            rows.append((label, [*before, *cells]))
    legends = [painter.legend(name, truth[name][0]) for name in (*conditions, *targets)]
    return Gallery(
        title=f"From {' and '.join(conditions)} to everything else",
        note="Per record: what the model generates from the inputs on the left, each modality "
        "seeing those generated before it, with the defaults of every command; what the tokenizers "
        f"make of the truth; the truth. Records {', '.join(map(str, chosen))} of {len(data)} were "
        f"drawn at random (seed {seed}). Boxes are drawn over the picture of their own row, where "
        "it has one, else over the picture given. Normals show x, y, z as red, green, blue; "
        "features show their first three principal components, global ones the training picture "
        "whose features are nearest.",
        columns=["", *(f"{name} (given)" for name in conditions), *targets],
        rows=[*rows, ("legend", legends)],
    )


def picture_of(generator: Generator, values: Mapping[str, Any], number: int) -> Picture | None:
    """The picture among the values of a record; None where there is none."""
    sources = {spec.source for spec in generator.model.modalities if spec.kind == "pixels"}
    for name, of_records in values.items():
        spec = generator.spec(name)
        if spec.kind == "pixels" or (spec.kind == "grid" and spec.source in sources - {""}):
            return np.asarray(of_records[number])
    return None


def sheet(gallery: Gallery, *, num_records: int = 3) -> Picture:
    """The first records of a gallery and its legend as one picture, under the columns' names."""
    rows = [*gallery.rows[: 3 * num_records], gallery.rows[-1]]
    return panels.table(gallery.columns[1:], rows)
