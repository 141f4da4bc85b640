"""A second model that enlarges scenes from 32 to 64 pixels.

    python -m experiments.quickstart --config=configs/super_resolution.py \
        --workdir=runs/super_resolution

It predicts the detail (`fourm_jax.scenes.detail`) from the pixels of the smaller picture, in one
pass; any picture of 32 pixels may be enlarged, that of another model too. On 256 held-out scenes
28.3 dB, 28.1 bicubically (docs/results.md#larger-pictures). `runlocal`: toy sizes.
"""

from typing import Any

import ml_collections

from configs import datasets, mixtures, quickstart, scenes
from configs import trunk as trunks
from configs.tokenizers import small
from fourm_jax.modalities import registry
from fourm_jax.utils import config as config_lib

FAMILY = "super_resolution"
NAMES = tuple(spec.name for spec in registry.FAMILIES[FAMILY])
INPUTS, TARGETS = ("rgb", "caption"), ("tok_detail",)
SOURCE_FIELDS = ("rgb", "detail", "caption")
NUM_DETAIL = 256  # tokens of a picture's detail
NUM_RECORDS = {"train": 4_096, "test": 256}
SIGNAL: dict[str, Any] = {"num_channels": 3, "low": -1.0, "high": 1.0, "std": 0.04}
SIZE = {"dim": 64, "encoder_depth": 2, "decoder_depth": 2, "num_heads": 2}
NUM_STEPS = 6_000  # of 16 scenes


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the job of `experiments.quickstart`; argument: runlocal."""
    args = config_lib.parse_arg(arg, runlocal=False)
    count = {"train": 64, "test": 64} if args.runlocal else NUM_RECORDS
    tokenize = datasets.tokenize(
        "scenes",
        {"image_size": 32, "seed": 0, "with_detail": True},
        NAMES,
        family=FAMILY,
        num_records=count,
        records_per_shard=count["train"],
        seed=None,
    )
    tokenizer = small.make(
        "detail",
        SIGNAL,
        "mse",
        quickstart.RAW,
        grid=16,
        num_codes=512,
        dim=64,
        num_steps=300,
        runlocal=args.runlocal,
    )
    return quickstart.job(
        raw_fields=SOURCE_FIELDS,
        tokenize=tokenize,
        tokenizers={"detail": tokenizer},
        trunk=trunk(args.runlocal),
        conditions=(("rgb",),),
        generated=(),
        runlocal=args.runlocal,
    )


def trunk(runlocal: bool) -> ml_collections.ConfigDict:
    """Return the trunk; three of four samples see the picture alone, the others its caption too."""
    wanted = {"tok_detail": 1.0}
    kinds = (
        mixtures.Kind(weight=0.75, seen={"rgb": 1.0}, wanted=wanted, alone=False),
        mixtures.Kind(weight=0.25, seen={"rgb": 10.0, "caption": 1.0}, wanted=wanted, alone=False),
    )
    mixture = mixtures.of_kinds(
        NAMES, TARGETS, kinds, keep={"caption": "random"}, num_targets=NUM_DETAIL
    )
    data = datasets.tokens("scenes", NAMES, mixture, data="")
    changes = {"num_steps": NUM_STEPS, "num_targets": NUM_DETAIL, "warmup_steps": 100}
    settings = scenes.settings("nano", data, runlocal, **changes)
    if not runlocal:
        settings["model"] = trunks.architecture(SIZE, positions="learned", scan_unroll=2)
    return trunks.make(family=FAMILY, inputs=INPUTS, outputs=TARGETS, **settings)
