"""Generate anything from anything: one result or many, drawn and as arrays.

python -m experiments.generate --source=runs/quickstart --conditions=rgb --targets=all \
    --output=scene.png
python -m experiments.generate --source=runs/quickstart --prompts=captions.tsv \
    --targets=tok_rgb --output=runs/pictures_from_captions
python -m experiments.generate --source=runs/quickstart --conditions=tok_rgb --targets=tok_rgb \
    --mask=0.2,0.3,0.6,0.9 --guide='caption=a red cone:3' --guide='caption=a blue box:-1' \
    --output=edited

The source is a run folder, a converted or published checkpoint, or a Hub id. A condition is a
modality name, taken from held-out record --record of the run, or name=value with a text, JSON or
the name of a file: --conditions='caption=a red cone left of a blue cube'. An output NAME.png is one
picture; any other is a folder with all results, which the same command continues. Several
processes (docs/howto/several-hosts.md#start) divide the rows of --prompts.
"""

import functools
import math
from typing import Any

from absl import flags
from etils import epath
from jax.sharding import Mesh

from experiments import cli, processes

cli.set_environment()

import jax  # noqa: E402

from fourm_jax import loading  # noqa: E402
from fourm_jax.generate import condition_files  # noqa: E402
from fourm_jax.generate.guides import Guide, parse  # noqa: E402
from fourm_jax.jobs import generation, requests  # noqa: E402
from fourm_jax.jobs.requests import held_out_record  # noqa: E402
from fourm_jax.parallel import mesh  # noqa: E402
from fourm_jax.utils import config as config_lib  # noqa: E402
from fourm_jax.utils import io, picture_files  # noqa: E402

_SOURCE = cli.define_path("source", None, cli.SOURCE, required=True)
_TOKENIZERS = cli.define_path(
    "tokenizers", None, "Folder with one folder per tokenizer; default: that of the source."
)
_CONDITIONS = flags.DEFINE_multi_string("conditions", [], "Name or name=value; default: rgb.")
_PROMPTS = cli.define_path("prompts", None, "Many rows: folder of pictures, .jsonl or .tsv.")
_TARGETS = cli.define_names("targets", ["all"], "Names, or all.")
_RECORD = flags.DEFINE_integer("record", 0, "Which held-out record.", lower_bound=0)
_STEPS = flags.DEFINE_integer("num_steps", None, "Passes over each grid.", lower_bound=1)
_GUIDANCE = flags.DEFINE_float("guidance", None, "Weight of the conditions; 1 = plain.")
_TEMPERATURE = flags.DEFINE_float("temperature", None, "Of the draws.", lower_bound=0.0)
_SEED = flags.DEFINE_integer("seed", 0, "Of the draws.", lower_bound=0, upper_bound=2**32 - 1)
_SAMPLES = flags.DEFINE_integer("num_samples", 1, "Results per row.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch_size", 64, "Samples on the device at once.", lower_bound=1)
_GUIDES = flags.DEFINE_multi_string("guide", [], "NAME=VALUE:WEIGHT; repeatable, also by name.")
_FIRST = cli.define_names("intermediate", None, "Targets generated before the others.")
_PLAN = flags.DEFINE_string(
    "plan", None, "How, by target: a config such as generate/published:preset=to_rgb, or NAME.json."
)
_MASK = flags.DEFINE_string(
    "mask",
    None,
    "Of targets that are given, white = anew: a picture, or xmin,ymin,xmax,ymax (0..1).",
)
_SHIFT = flags.DEFINE_list(
    "shift", None, "Rows,columns by which given pictures move; what comes in is generated."
)
_BEST_OF = flags.DEFINE_integer("best_of", 1, "Samples, of which one is taken.", lower_bound=1)
_VERIFIER = flags.DEFINE_string("verifier", "caption", "Condition that the best one agrees with.")
_ANIMATION = cli.define_path(
    "animation", None, "NAME.webp or NAME.gif of the steps.", written="file"
)
_DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Of the computation.")
_MESH = cli.define_names("mesh", None, "Devices that share a batch, as data=4,tensor=2.")
_OUTPUT = cli.define_path("output", "generated.png", "NAME.png, or a folder.", written="file")
processes.define()


def main() -> None:
    """Generate and draw."""
    output = _OUTPUT.value
    guides = [parse(text) for text in _GUIDES.value]
    plan = check(output)
    share = processes.share()
    if share["process_count"] > 1 and not _PROMPTS.value:
        raise ValueError("several processes divide the rows of --prompts, and there are none")
    devices = axes(_MESH.value) if _MESH.value else None
    generator = loading.load_generator(
        _SOURCE.value, tokenizers=_TOKENIZERS.value, dtype=_DTYPE.value
    )
    if devices is not None:
        generator = generator.on_mesh(devices)
    specs = {name: generator.spec(name) for name in generator.model.inputs}
    if _PROMPTS.value:
        everything = requests.read(_PROMPTS.value, specs, seed=_SEED.value)
        todo = everything[share["process_index"] :: share["process_count"]]
    else:
        texts = _CONDITIONS.value or ([] if guides else ["rgb"])
        record = functools.partial(held_out_record, _SOURCE.value, _RECORD.value)
        name = f"held-out record {_RECORD.value}"
        todo = [requests.typed(texts, specs, record, record_name=name, seed=_SEED.value)]
    options: dict[str, Any] = {
        "targets": "all" if _TARGETS.value == ["all"] else _TARGETS.value,
        "plan": plan,
        "num_steps": _STEPS.value,
        "guidance": _GUIDANCE.value,
        "temperature": _TEMPERATURE.value,
        "intermediate": _FIRST.value,
        "guides": [
            Guide(name=name, value=condition_files.read(text, generator.spec(name)), weight=weight)
            for name, text, weight in guides
        ],
    }
    if _MASK.value or _SHIFT.value:
        shift = tuple(map(int, _SHIFT.value)) if _SHIFT.value else None
        todo[0], options["mask"] = requests.edited(todo[0], specs, _MASK.value, shift)
    job = generation.Job(
        options={name: one for name, one in options.items() if one is not None},
        source=str(_SOURCE.value),
        num_samples=_SAMPLES.value,
        best_of=_BEST_OF.value,
        verifier=_VERIFIER.value,
        batch_size=_BATCH.value,
    )
    if output.suffix == ".png":
        made = generation.draw_one(generator, todo[0], job, output)
        for name, reason in made.decoded.lacking.items():
            print(f"{name} is generated but not drawn: {reason}")
        print(f"{', '.join(todo[0].conditions)} -> {', '.join(made.decoded)}: {output}")
    else:
        done = generation.run(generator, todo, output, job)
        there = f", {len(todo) - done} were there" if done < len(todo) else ""
        print(f"{done} of {len(todo)} requests generated{there}: {output}")
    if _ANIMATION.value:
        generation.animate(generator, todo[0], job, _ANIMATION.value)
        print(f"the steps: {_ANIMATION.value}")


def check(output: epath.Path) -> dict[str, Any] | None:
    """Refuse flags that do not go together, before anything is loaded; return the plan.

    Raises:
      ValueError: names the flags.
    """
    if output.suffix == ".png":
        if not output.parent.is_dir():
            raise ValueError(f"--output={output}: expected NAME.png in a folder that exists")
        if _PROMPTS.value or _SAMPLES.value > 1:
            raise ValueError(f"--output={output} is one picture: name a folder for many results")
    elif output.suffix.lower() in picture_files.SUFFIXES:
        raise ValueError(f"--output={output}, allowed: NAME.png or a folder")
    else:
        generation.check_output(output)
    if _ANIMATION.value and _ANIMATION.value.suffix not in (".gif", ".webp"):
        raise ValueError(f"--animation={_ANIMATION.value}, allowed: NAME.webp or NAME.gif")
    if _PROMPTS.value and (_CONDITIONS.value or _MASK.value or _SHIFT.value):
        raise ValueError("--prompts goes without --conditions, --mask and --shift")
    if _GUIDES.value and _GUIDANCE.value is not None:
        raise ValueError("--guide and --guidance, allowed: one of both; a guide has its own weight")
    if _MASK.value and _SHIFT.value:
        raise ValueError("--mask and --shift, allowed: one of both; a shift makes its own mask")
    if _PROMPTS.value and not _PROMPTS.value.exists():
        raise ValueError(f"--prompts={_PROMPTS.value}: no such file or folder")
    for name, flag in (("guidance", _GUIDANCE), ("temperature", _TEMPERATURE)):
        if flag.value is not None and not math.isfinite(flag.value):
            raise ValueError(f"--{name}={flag.value}, allowed: finite numbers")
    is_shift = [part.lstrip("-").isdigit() for part in _SHIFT.value or ()]
    if _SHIFT.value and is_shift != [True, True]:
        raise ValueError(f"--shift={','.join(_SHIFT.value)}, allowed: ROWS,COLUMNS in pixels")
    if _PLAN.value is None:
        return None
    if _PLAN.value.endswith(".json"):
        plan = io.read_json(_PLAN.value)
        if not isinstance(plan, dict) or not all(isinstance(one, dict) for one in plan.values()):
            raise ValueError(f"--plan={_PLAN.value}: expected {{target: {{field: value}}}}")
        return plan
    return config_lib.load(cli.find_config(_PLAN.value)).to_dict()


def axes(texts: list[str]) -> Mesh:
    """The mesh of AXIS=NUMBER texts; axes that are not named have one device.

    Raises:
      ValueError: another form, or a product that is not the number of devices.
    """
    sizes = dict(text.partition("=")[::2] for text in texts)
    for name, size in sizes.items():
        if name not in mesh.AXES or not size.isdigit():
            raise ValueError(f"--mesh={','.join(texts)}, allowed: AXIS=NUMBER of {mesh.AXES}")
    data, fsdp, tensor = (int(sizes.get(name, 1)) for name in mesh.AXES)
    devices = jax.local_devices()  # several processes have rows of their own
    return mesh.make_mesh(data=data, fsdp=fsdp, tensor=tensor, devices=devices)


if __name__ == "__main__":
    cli.run(main)
