"""Published ways to go on from a trained any-to-any model, each from the weights of `source`.

    python -m experiments.train --config=configs/finetune/fourm.py:recipe=mod21,source=RUN \
        --workdir=DIR

`source` is a run folder, a converted or published folder, or a Hub id such as
EPFL-VILAB/4M-7_B_CC12M; its architecture is that of `size`. Data sets as in configs/fourm.py.

| recipe     | from  | what changes                          | tokens in + out | batch | steps   |
|------------|-------|---------------------------------------|-----------------|-------|---------|
| mod21      | 4M-7  | 14 modalities more (arXiv:2406.09406) | 256 + 256       | 4,096 | 239,218 |
| text2image | 4M-7  | captions are mostly seen in full      | 256 + 256       | 4,096 | 47,852  |
| superres   | 4M-7  | 448 pixels; tables start as at 224    | 1,024 + 1,024   | 4,096 | 12,205  |
| pictures   | 4M-21 | your own (configs/data/pictures.py)   | 128 + 128       | 256   | 20,000  |

The number of steps and the rate of text2image (100 billion tokens) and all of pictures are ours. No
run of these is recorded yet. `runlocal` takes a few steps of a tiny model on random data; its
source is a run of configs/fourm.py:runlocal of the model that the recipe goes on from.
"""

from collections.abc import Iterable
from typing import Any

import ml_collections

from configs import datasets, fourm, mixtures
from configs.data import pictures
from fourm_jax.modalities import registry
from fourm_jax.models import sizes
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

PICTURE = "rgb"  # the field of the whole picture, whatever pixels modality is cut from it
FURTHER: dict[str, Any] = {"batch_size": 4_096, "maskings_per_record": 1}
RECIPES: dict[str, dict[str, Any]] = {
    "mod21": {
        **FURTHER,
        "num_tokens": 256,
        "num_steps": 239_218,
        "warmup_steps": 4_769,
        "lr": 1.6e-3,
    },
    "text2image": {
        **FURTHER,
        "num_tokens": 256,
        "num_steps": 47_852,
        "warmup_steps": 1_000,
        "lr": 1.6e-3,
    },
    "superres": {
        **FURTHER,
        "num_tokens": 1_024,
        "num_steps": 12_205,
        "warmup_steps": 597,
        "lr": 1.6e-3,
        "clip_norm": 3.0,
    },
    "pictures": {
        "batch_size": 256,
        "maskings_per_record": 4,
        "num_tokens": 128,
        "num_steps": 20_000,
        "warmup_steps": 1_000,
        "lr": 1e-4,
        "clip_norm": 3.0,
    },
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; `arg` is e.g. "recipe=mod21,size=large,source=RUN".

    Arguments: recipe, source, size ("base", "large", "xlarge"), data (folder of the data sets),
    runlocal.
    """
    args = config_lib.parse_arg(
        arg, recipe="mod21", source="runs/fourm", size="base", data="data", runlocal=False
    )
    if args.recipe not in RECIPES:
        raise ValueError(errors.unknown_value("recipe", args.recipe, RECIPES))
    inputs, outputs, init = modalities(args.recipe)
    values = {
        "clip_norm": 0.0,
        "mesh": fourm.SHARDED,
        **RECIPES[args.recipe],
        "size": sizes.get(args.size),
        "remat": fourm.REMAT[args.size],
        "scan_unroll": fourm.SCAN_UNROLL[args.size],
        "overrides": fourm.MIXES["mod21"]["overrides"] if "human_poses" in outputs else {},
        "init": {"source": args.source, **init},
    }
    data = data_sets(args.recipe, args.data)
    return fourm.make(inputs, outputs, data, values, runlocal=args.runlocal)


def modalities(recipe: str) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Any]]:
    """Inputs and outputs, and which parts start from others or anew."""
    if recipe == "mod21":
        more = set(registry.MOD21_IN) - set(registry.MOD7_IN)
        return registry.MOD21_IN, registry.MOD21_OUT, {"reset": of_modalities(more)}
    if recipe == "superres":
        return registry.SR_IN, registry.SR_OUT, {"rename": {"@448": "@224"}}
    if recipe == "pictures":
        outputs = tuple(name for name in pictures.MODALITIES if name != "rgb@224")
        return pictures.MODALITIES, outputs, {}
    return registry.MOD7_IN, registry.MOD7_OUT, {}


def of_modalities(names: Iterable[str]) -> str:
    """Regex of the parts that belong to these modalities alone."""
    return "|".join(rf"/(contents_)?{name}(/|$)" for name in sorted(names))


def data_sets(recipe: str, directory: str) -> tuple[ml_collections.ConfigDict, ...]:
    """The data sets of a recipe, in folders below `directory`."""
    if recipe == "mod21":
        return fourm.data_sets("mod21", directory)
    if recipe == "pictures":
        mixture = datasets.only(mixtures.mod21(), pictures.MODALITIES)
        return (datasets.tokens("pictures", pictures.MODALITIES, mixture, data=directory),)
    is_large = recipe == "superres"
    names = registry.SR_IN if is_large else registry.MOD7_IN
    mixture = mixtures.mod7_superres() if is_large else mixtures.mod7_text2image()
    fields = {
        spec.name: PICTURE if spec.kind == "pixels" else spec.name
        for spec in registry.resolve("fourm", names)
    }
    folder = f"{directory}/cc12m_448" if is_large else f"{directory}/cc12m"
    return (datasets.tokens("cc12m", names, mixture, data=folder, fields=fields),)
