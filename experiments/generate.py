"""Generate anything from anything with a finished run, as one picture.

python -m experiments.generate --workdir=runs/quickstart --conditions=rgb --targets=all \
    --output=scene.png

A condition is a modality name, taken from held-out record --record, or name=value with a text or
with an image or .npy file: --conditions='caption=a red cone left of a blue cube'.
"""

import pathlib
import sys

import numpy as np
from absl import app, flags
from PIL import Image

from experiments import cli
from fourm_jax.data import sources
from fourm_jax.evals import panels
from fourm_jax.train import runs

_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder.", required=True)
_CONDITIONS = flags.DEFINE_multi_string("conditions", ["rgb"], "Name or name=value; repeatable.")
_TARGETS = flags.DEFINE_list("targets", ["all"], "Names, or all.")
_SOURCE = flags.DEFINE_string("source", "scenes", "Where held-out records come from.")
_RECORD = flags.DEFINE_integer("record", 0, "Which held-out record.")
_STEPS = flags.DEFINE_integer("num_steps", 16, "Passes over each grid.")
_GUIDANCE = flags.DEFINE_float("guidance", 2.0, "Weight of the conditions; 1 = plain.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the draws.")
_OUTPUT = flags.DEFINE_string("output", "generated.png", "Picture to write.")


def read(text: str, spec) -> object:
    """Value of one condition: a file, a text, or the field of the held-out record."""
    _, given, value = text.partition("=")
    if not given:
        arguments = {"num_records": _RECORD.value + 1}
        return sources.open_source(_SOURCE.value, "test", arguments)[_RECORD.value][spec.source]
    if not pathlib.Path(value).is_file():
        return value
    if value.endswith(".npy"):
        return np.load(value, allow_pickle=False)
    return np.asarray(Image.open(value).convert("RGB"))


def main(argv: list[str]) -> None:
    """Generate; wrong input ends in one line."""
    try:
        generator = runs.load_generator(_WORKDIR.value)
        names = [text.partition("=")[0] for text in _CONDITIONS.value]
        given = {
            n: read(t, generator.spec(n)) for n, t in zip(names, _CONDITIONS.value, strict=True)
        }
        conditions = {n: v[None] if isinstance(v, np.ndarray) else [v] for n, v in given.items()}
        targets = "all" if _TARGETS.value == ["all"] else _TARGETS.value
        done = generator.generate(
            conditions, targets,
            num_steps=_STEPS.value, guidance=_GUIDANCE.value, seed=_SEED.value,
        )  # fmt: skip
    except ValueError as error:
        sys.exit(f"error: {error}")
    shown = given | {name: value.raw[0] for name, value in done.decoded.items()}
    Image.fromarray(panels.sheet(shown)).save(_OUTPUT.value)
    print(f"{', '.join(given)} -> {', '.join(done.decoded)}: {_OUTPUT.value}")


if __name__ == "__main__":
    app.run(main, flags_parser=cli.parse)
