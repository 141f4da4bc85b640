"""Generate anything from anything with a finished run, as one picture.

python -m experiments.generate --source=runs/quickstart --conditions=rgb --targets=all \
    --output=scene.png

The source is a run folder, a converted or published checkpoint, or a Hub id. A condition is a
modality name, taken from held-out record --record of the run, or name=value with a text or with an
image or .npy file: --conditions='caption=a red cone left of a blue cube'.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags
from etils import epath

from experiments import cli

cli.set_environment()

from fourm_jax import loading  # noqa: E402
from fourm_jax.data import datasets  # noqa: E402
from fourm_jax.evals import any_to_any, drawing, panels, pictures  # noqa: E402
from fourm_jax.generate import condition_files  # noqa: E402
from fourm_jax.generate.generator import Generator  # noqa: E402
from fourm_jax.modalities.spec import ModalitySpec  # noqa: E402
from fourm_jax.utils import io, run_folder  # noqa: E402

_SOURCE = cli.define_path("source", None, cli.SOURCE, required=True)
_TOKENIZERS = cli.define_path(
    "tokenizers", None, "Folder with one folder per tokenizer; default: that of the source."
)
_CONDITIONS = flags.DEFINE_multi_string("conditions", ["rgb"], "Name or name=value; repeatable.")
_TARGETS = flags.DEFINE_list("targets", ["all"], "Names, or all.")
_RECORD = flags.DEFINE_integer("record", 0, "Which held-out record.", lower_bound=0)
_STEPS = flags.DEFINE_integer("num_steps", 16, "Passes over each grid.", lower_bound=1)
_GUIDANCE = flags.DEFINE_float("guidance", 2.0, "Weight of the conditions; 1 = plain.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the draws.", lower_bound=0, upper_bound=2**32 - 1)
_OUTPUT = cli.define_path("output", "generated.png", "PNG picture to write.", written="file")


def main() -> None:
    """Generate and draw."""
    output = _OUTPUT.value
    if output.suffix.lower() != ".png" or not output.parent.is_dir():
        raise ValueError(f"--output={output}: expected NAME.png in a folder that exists")
    generator = loading.load_generator(_SOURCE.value, tokenizers=_TOKENIZERS.value)
    given = {}
    for text in _CONDITIONS.value:
        name = text.partition("=")[0]
        given[name] = read(text, generator.spec(name))
    done = generator.generate(
        {name: v[None] if isinstance(v, np.ndarray) else [v] for name, v in given.items()},
        "all" if _TARGETS.value == ["all"] else _TARGETS.value,
        num_steps=_STEPS.value,
        guidance=_GUIDANCE.value,
        seed=_SEED.value,
        show_progress=True,
    )
    values = given | {
        name: any_to_any.record_values(generator.spec(name), value)[0]
        for name, value in done.decoded.items()
    }
    draw(generator, values, output)
    for name, reason in done.decoded.lacking.items():
        print(f"{name} is generated but not drawn: {reason}")
    print(f"{', '.join(given)} -> {', '.join(done.decoded)}: {output}")


def draw(generator: Generator, values: Mapping[str, Any], output: epath.Path) -> None:
    """Draw one value of every modality side by side."""
    cells = {}
    for name, value in values.items():
        spec = generator.spec(name)
        cell = drawing.of(spec, signal=any_to_any.signal_of(generator, spec))
        cells[name] = value if isinstance(value, str) else cell(value, None)
    io.write_bytes(output, pictures.png(panels.sheet(cells)))


def read(text: str, spec: ModalitySpec) -> Any:
    """Value of one condition: a file, a text, or the field of the held-out record.

    Raises:
      ValueError: a file or record that is not there.
    """
    _, given, value = text.partition("=")
    if not given:
        return held_out_record()[spec.source]
    return condition_files.read(value, spec)


def held_out_record() -> dict[str, Any]:
    """Raw record --record of the run's held-out ones.

    Raises:
      ValueError: the source is no run that has some, or has fewer.
    """
    raw = _SOURCE.value / run_folder.RAW
    if not raw.is_dir():
        raise ValueError(
            f"{_SOURCE.value} has no held-out records ({raw}): give each condition a value, as in "
            "--conditions=rgb=picture.png"
        )
    records = datasets.open_source("token_shards", "test", {"directory": raw})
    if not 0 <= _RECORD.value < len(records):
        raise ValueError(f"--record={_RECORD.value}, allowed: 0..{len(records) - 1}")
    return records[_RECORD.value]


if __name__ == "__main__":
    cli.run(main)
