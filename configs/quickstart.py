"""Everything `make quickstart` does: scenes, tokenizers, token shards, trunk, evaluation, report.

    python -m experiments.quickstart --workdir=runs/quickstart

11 to 15 minutes and under 6 GB on 2 CPU cores. Expected on 256 held-out scenes: see the table in
README.md. `:runlocal` does the same with toy sizes in two minutes, `:data=digits` with the scanned
digits in two.
"""

from typing import Any

import ml_collections

from configs import digits, scenes
from configs.data import digits as digits_data
from configs.data import scenes as scenes_data
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

PAIR = ("tok_depth", "color_palette")  # an arbitrary pair of conditions
# By their colours, and by what a probe that was trained on true scenes sees in them.
PICTURE_MEASURES = (
    "scenes.image_scores:COLOUR_F1",
    *(f"scenes.shape_probe:{name}" for name in ("SHAPE_F1", "SIZE_F1", "OBJECT_F1", "PLACES")),
)
LOCAL: dict[str, Any] = {"num_records": {"train": 64, "test": 64}, "records_per_shard": 64}
# The quickstart reads what it writes: jobs.quickstart puts its folders in place of these.
RAW = {"name": "raw_scenes", "source": "token_shards", "arguments": {"directory": ""}}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; arguments: data (scenes, digits), size (of that trunk), runlocal."""
    args = config_lib.parse_arg(arg, data="scenes", size="nano", runlocal=False)
    jobs = {"scenes": on_scenes, "digits": on_digits}
    if args.data not in jobs:
        raise ValueError(errors.unknown_value("data set", args.data, jobs))
    return jobs[args.data](args.size, args.runlocal)


def on_scenes(size: str, runlocal: bool) -> ml_collections.ConfigDict:
    """Return the job on scenes; its trunk is `size` of configs/scenes.py."""
    settings: dict[str, Any] = LOCAL if runlocal else {}
    if size == "small" and not runlocal:
        # An hour of steps would see 16,384 scenes ten times.
        settings = {"num_records": {**scenes_data.NUM_RECORDS, "train": 65_536}}
    names = scenes_data.TOKENIZERS
    return job(
        raw_fields=scenes_data.SOURCE_FIELDS,
        tokenize=scenes_data.tokenize(**settings),
        tokenizers={name: scenes_data.tokenizer(name, RAW, runlocal) for name in names},
        trunk=scenes.of_size(size, scenes.tokens(size, ""), runlocal),
        conditions=(("rgb",), ("caption",), PAIR),
        generated=tuple(picture_from(given, runlocal) for given in (("caption",), PAIR)),
        runlocal=runlocal,
    )


def on_digits(size: str, runlocal: bool) -> ml_collections.ConfigDict:
    """Return the job on digits, whose trunk has one size."""
    del size
    names = digits_data.TOKENIZERS
    return job(
        raw_fields=digits_data.SOURCE_FIELDS,
        tokenize=digits_data.tokenize(**(LOCAL if runlocal else {})),
        tokenizers={name: digits_data.tokenizer(name, RAW, runlocal) for name in names},
        trunk=digits.make(digits_data.tokens(""), runlocal),
        conditions=(("rgb",), ("caption",)),
        generated=(),
        runlocal=runlocal,
    )


def job(
    *,
    raw_fields: tuple[str, ...],
    tokenize: ml_collections.ConfigDict,
    tokenizers: dict[str, ml_collections.ConfigDict],
    trunk: ml_collections.ConfigDict,
    conditions: tuple[tuple[str, ...], ...],
    generated: tuple[ml_collections.ConfigDict, ...],
    runlocal: bool,
) -> ml_collections.ConfigDict:
    """Return all phases; `runlocal` evaluates on a few records."""
    config = ml_collections.ConfigDict()
    config.text_vocab_size = 4_608
    config.raw_fields = raw_fields
    config.pretokenize = tokenize
    config.tokenizers = tokenizers
    config.trunk = trunk
    config.evaluation = {
        "num_records": 8 if runlocal else 256,
        "num_shown": 2 if runlocal else 6,
        "condition": "rgb",  # of the tasks that predict every other modality
        "conditions": conditions,  # of the galleries
        "generated": generated,
    }
    return config.lock()


def picture_from(conditions: tuple[str, ...], runlocal: bool) -> ml_collections.ConfigDict:
    """A task of the report: pictures from `conditions` show the objects that the caption names.

    The probe takes 20 seconds to train, so `runlocal` counts colours alone.
    """
    return ml_collections.ConfigDict(
        {
            "conditions": conditions,
            "target": "tok_rgb",
            "measures": PICTURE_MEASURES[:1] if runlocal else PICTURE_MEASURES,
            "truth": "caption",
        }
    )
