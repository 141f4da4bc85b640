"""A form answered step by step, and its results as one file to keep."""

import dataclasses
import itertools
import json
import pathlib
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from fourm_jax.demo import forms
from fourm_jax.demo.forms import Form
from fourm_jax.evals import panels, pictures
from fourm_jax.evals.pictures import Picture
from fourm_jax.generate.generator import Generator
from fourm_jax.generate.prompts import ConditionWarning
from fourm_jax.jobs import generation

RESULTS = "results.zip"
# What a wrong form, a wrong file or too large a request can cause; all else is a defect.
EXPECTED = (ValueError, OSError, MemoryError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What the page shows.

    Attributes:
      status: one line.
      sheet: everything drawn so far.
      record: what `result.json` holds; of the last step.
      file: all results in one archive; of the last step.
    """

    status: str
    sheet: Picture | None = None
    record: Mapping[str, Any] | None = None
    file: pathlib.Path | None = None


def answer(generator: Generator, form: Form, source: str, folder: pathlib.Path) -> Iterator[Answer]:
    """Generate what a form asks for; an answer after every step.

    Args:
      source: where the generator came from.
      folder: in which the archive of the results is made.

    Raises:
      ValueError: the form asks for what cannot be, in one line for who filled it in.
    """
    request, job = forms.request(form, generator, source)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConditionWarning)
        entries = generation.encode(generator, [request])
        steps = generation.steps(generator, entries, request.seed, job)
        first = next(steps)  # before it, guides are encoded
    notes = [str(one.message) for one in said if one.category is ConditionWarning]
    for number, last in enumerate(itertools.chain([first], steps), 1):
        status = f"step {number}: {last.target}"
        yield Answer(status="; ".join([status, *notes]), sheet=panels.sheet(last.cells))
    with tempfile.TemporaryDirectory() as place:
        results = epath.Path(place)
        record = {**job.to_json(), **request.to_json(), "notes": notes}
        generation.write(generator, entries, last.made, results, record)
        _write_given(form, results)
        sheet = np.asarray(panels.sheet(_all_cells(generator, entries, last)))
        said_of = json.loads((results / generation.RESULT).read_text())
        file = _archive(results, folder)
    texts = [f"{name}: {one.texts[0]}" for name, one in last.made.decoded.items() if one.texts]
    lacking = [f"{name}: {why}" for name, why in last.made.decoded.lacking.items()]
    status = "\n\n".join([f"done in {number} steps", *texts, *lacking, *notes])
    yield Answer(status=status, sheet=sheet, record=said_of, file=file)


def _all_cells(generator: Generator, entries: Any, step: generation.Step) -> dict[str, Any]:
    return generation.draw(generator, generation.values(generator, entries, step.made))


def _write_given(form: Form, folder: epath.Path) -> None:
    """The picture and mask as they were given, from which the results can be made again."""
    if form.picture is not None:
        (folder / "given_picture.png").write_bytes(pictures.png(form.picture))
    if form.mask is not None:
        white = np.repeat(form.mask[..., None], 3, axis=-1) * np.uint8(255)
        (folder / "given_mask.png").write_bytes(pictures.png(white))


def _archive(results: epath.Path, folder: pathlib.Path) -> pathlib.Path:
    """Everything in a folder as one file."""
    folder.mkdir(parents=True, exist_ok=True)
    place = pathlib.Path(tempfile.mkdtemp(dir=folder)) / RESULTS
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(results.iterdir()):
            archive.writestr(path.name, path.read_bytes())
    return place
