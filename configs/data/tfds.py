"""What the configs of TFDS data sets share: their tokens as a data set, and part of a mixture.

Each has RAW, how `configs/pretokenize/tfds.py` reads it (the arguments of source "tfds"), and
MODALITIES, what becomes of it; their masking mixtures are the published ones for these modalities.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from fourm_jax.utils import config as config_lib

FAMILY = "fourm"
NAMES = (
    "c4", "clevr", "coco_2017_panoptic", "coco_captions", "imagenet2012", "nyu_depth_v2",
    "oxford_iiit_pet",
)  # fmt: skip


def tokens(
    name: str, modalities: Sequence[str], mixture: Mapping[str, Any], arg: str | None
) -> ml_collections.ConfigDict:
    """Config of one data set of tokens.

    Args:
      arg: "data=DIR", the folder of its shards, and "runlocal" for random tokens instead.
    """
    args = config_lib.parse_arg(arg, data=f"runs/{name}/data", runlocal=False)
    config = ml_collections.ConfigDict()
    config.name = name
    config.source = "fake" if args.runlocal else "token_shards"
    config.arguments = {"directory": args.data}
    if args.runlocal:
        config.arguments = {"family": FAMILY, "names": tuple(modalities), "num_records": 64}
    config.fields = {modality: modality for modality in modalities}
    config.weight = 1.0
    config.mixture = dict(mixture)
    return config


def only(mixture: Mapping[str, Any], modalities: Sequence[str]) -> dict[str, Any]:
    """The part of a mixture that is about these modalities."""
    per_modality = ("input_alphas", "target_alphas", "keep")
    return {
        key: {name: part for name, part in value.items() if name in modalities}
        if key in per_modality
        else value
        for key, value in mixture.items()
    }
