"""Everything `make quickstart` does: scenes, tokenizers, token shards, trunk, evaluation, report.

    python -m experiments.quickstart --workdir=runs/quickstart

11 to 15 minutes and under 6 GB on 2 CPU cores. Expected on 256 held-out scenes: see the table in
README.md. `:runlocal` does the same with toy sizes in two minutes, `:data=digits` with the scanned
digits in two.
"""

import ml_collections

from configs import digits, scenes
from configs.pretokenize import digits as pretokenize_digits
from configs.pretokenize import scenes as pretokenize_scenes
from configs.tokenizers import digits as tokenizers_digits
from configs.tokenizers import scenes as tokenizers_scenes
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

DATA = {
    "scenes": (pretokenize_scenes, tokenizers_scenes),
    "digits": (pretokenize_digits, tokenizers_digits),
}
PAIR = ("tok_depth", "color_palette")  # an arbitrary pair of conditions


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; arguments: data (scenes, digits), size (of that trunk), runlocal."""
    args = config_lib.parse_arg(arg, data="scenes", size="nano", runlocal=False)
    if args.data not in DATA:
        raise ValueError(errors.unknown_value("data set", args.data, DATA))
    pretokenize, tokenizers = DATA[args.data]
    on_scenes = args.data == "scenes"
    config = ml_collections.ConfigDict()
    config.text_vocab_size = 4_608
    config.raw_fields = tokenizers.SOURCE_FIELDS
    config.pretokenize = pretokenize.get_config()
    config.tokenizers = {name: tokenizers.get_config(name) for name in tokenizers.NAMES}
    config.trunk = scenes.get_config(f"size={args.size}") if on_scenes else digits.get_config()
    if on_scenes and args.size == "small":  # an hour of steps would see 16,384 scenes ten times
        config.pretokenize.num_records.train = 65_536
    config.evaluation = {
        "num_records": 256,
        "num_shown": 6,
        "conditions": (("rgb",), ("caption",), PAIR) if on_scenes else (("rgb",), ("caption",)),
        "generated": tuple(picture_from(names) for names in (("caption",), PAIR) if on_scenes),
    }
    if args.runlocal:
        runlocal(config)
    return config.lock()


def picture_from(conditions: tuple[str, ...]) -> dict:
    """A task of the report: pictures from `conditions` show the colours that the caption names."""
    return {
        "conditions": conditions,
        "target": "tok_rgb",
        "measure": "scenes.image_scores:COLOUR_F1",
        "truth": "caption",
    }


def runlocal(config: ml_collections.ConfigDict) -> None:
    """Shrink `config` in place: every phase on a few records; learns next to nothing."""
    scenes.shrink(config.trunk)
    config.pretokenize.num_records = {"train": 64, "test": 64}
    config.pretokenize.records_per_shard = 64
    for tokenizer in config.tokenizers.values():
        tokenizers_scenes.shrink(tokenizer)
    config.evaluation.num_records = 8
    config.evaluation.num_shown = 2
