"""What generation can do with a finished run of scenes: figures and galleries on one page.

OUTPUT/showcase.html    everything, in one file
OUTPUT/showcase.json    the figures
OUTPUT/*.png            the galleries as pictures
OUTPUT/parts/*.html     what is finished: the same command continues after an interruption, with
                        the same models, scenes and seed
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from fourm_jax.data import datasets
from fourm_jax.evals import report
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import exhibits, output_folder
from fourm_jax.jobs.exhibits import FIELDS, Scenes
from fourm_jax.models import weights
from fourm_jax.utils import io, progress, run_folder

FIGURES = "showcase.json"


def read(source: epath.Path, num_records: int) -> Scenes:
    """Held-out records of a run.

    Raises:
      ValueError: the folder is no run, or one of other data.
    """
    raw = source / run_folder.RAW
    if not raw.is_dir():
        raise ValueError(f"{source} has no held-out records ({raw}): a run of the quickstart has")
    records = datasets.open_source("token_shards", "test", {"directory": raw})
    rows = [records[index] for index in range(min(num_records, len(records)))]
    missing = [name for name in FIELDS if name not in rows[0]]
    if missing:
        raise ValueError(f"{raw}: records without {missing}, expected those of the scenes")
    fields: dict[str, Any] = {name: [row[name] for row in rows] for name in FIELDS}
    return Scenes(fields={**fields, "rgb": np.stack(fields["rgb"])})


def run(
    generator: Generator,
    scenes: Scenes,
    output: epath.Path,
    *,
    upscaler: Generator | None = None,
    seed: int = 0,
) -> epath.Path:
    """Make all figures and galleries that are not there yet; return the page.

    Args:
      upscaler: of configs/super_resolution.py; None: nothing is enlarged.

    Raises:
      ValueError: the folder has figures of another model, other scenes or another seed, or other
        things and no figures.
    """
    settings = {
        "num_records": len(scenes),
        "seed": seed,
        "model": weights.fingerprint(generator.params),
    }
    if upscaler is not None:
        settings["upscaler"] = weights.fingerprint(upscaler.params)
    figures = _begun(output, settings)
    parts: list[str] = []
    chosen = list(exhibits.EXHIBITS)
    if upscaler is not None:
        chosen.append(functools.partial(exhibits.super_resolution, upscaler))
    for exhibit in progress.track(chosen, label="showcase", unit="exhibit", name=_name):
        part = output / "parts" / f"{_name(exhibit)}.html"
        if not (_name(exhibit) in figures and part.exists()):
            numbers, page = exhibit(generator, scenes, output, seed)
            io.write_text(part, "\n".join(page))
            figures[_name(exhibit)] = numbers
            io.write_json(output / FIGURES, figures)
        parts.append(part.read_text())
    rows = [
        (exhibit, name, value)
        for exhibit, numbers in figures.items()
        if isinstance(numbers, dict)
        for name, value in numbers.items()
        if isinstance(value, float)
    ]
    table = report.table_html("Figures", ("exhibit", "figure", "value"), rows)
    report.write(
        output / "showcase.html",
        title="What generation can do",
        summary=f"{len(scenes)} held-out scenes, seed {seed}; rows are the first ones, not chosen.",
        parts=[table, *parts],
    )
    return output / "showcase.html"


def check_output(output: epath.Path) -> None:
    """Refuse a folder that holds something and no showcase, such as a run.

    Raises:
      ValueError: names the first thing that is there.
    """
    output_folder.check(output, FIGURES, "no showcase")


def _begun(output: epath.Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Figures that are there already, and what they belong to."""
    path = output / FIGURES
    check_output(output)
    if not path.exists():
        io.write_json(path, dict(settings))
        return dict(settings)
    figures = dict(io.read_json(path))
    for name, value in settings.items():
        there = figures.get(name)
        if there != value and not (name == "upscaler" and there is None):  # nothing is enlarged yet
            raise ValueError(
                f"{path} has figures with {name} {there}, not {value}: use another output"
            )
    return {**figures, **settings}


def _name(exhibit: Callable[..., Any]) -> str:
    return getattr(exhibit, "func", exhibit).__name__
