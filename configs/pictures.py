"""Any-to-any model of your own pictures: pixels, tokens, edges, captions, palettes, metadata.

    python -m experiments.train --config=configs/pictures.py:size=small --workdir=runs/mine

Reads what `experiments.tokenize_dataset` with configs/data/pictures.py:tokenize wrote to
runs/pictures/data (`data=` names another folder). "nano" is the quickstart's trunk, for 2 CPU cores
(global batch 16, 64 + 96 tokens). The other sizes are those of the published models, from "tiny"
(25 M parameters without embeddings) to "xlarge"; global batch 256, 128 + 128 tokens, bfloat16:
meant for a GPU or TPU. `,runlocal` tries a size on the tokens in data, or on random ones.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import datasets, fourm, scenes, trunk
from configs.data import pictures
from fourm_jax.models import sizes
from fourm_jax.utils import config as config_lib

NUM_STEPS = 4_400  # of nano, for 3,000 pictures
EVAL_EVERY = 2_000  # loss on the pictures that `build_data` holds out


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; arguments: size ("nano" or of `models.sizes`), data (folder of shards),
    steps (0: as many as are meant for 3,000 pictures), runlocal."""
    args = config_lib.parse_arg(
        arg, size="tiny", data="runs/pictures/data", steps=0, runlocal=False
    )
    names = pictures.modalities("nano" if args.size == "nano" else "base")
    fake = args.runlocal and not datasets.exist(args.data)
    return make(
        args.size,
        names,
        data=args.data,
        num_steps=args.steps,
        eval_every=0 if args.runlocal else EVAL_EVERY,
        runlocal=args.runlocal,
        fake=fake,
    )


def make(
    size: str,
    names: tuple[str, ...],
    *,
    data: str,
    num_steps: int = 0,
    eval_every: int = 0,
    runlocal: bool = False,
    fake: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> ml_collections.ConfigDict:
    """Return the trunk of a size.

    Args:
      names: its modalities.
      data: folder of the shards.
      num_steps: default: as many as are meant for 3,000 pictures.
      eval_every: steps between looks at the held-out pictures, of sizes larger than nano.
      runlocal: a small model and a handful of steps.
      fake: random tokens in place of `data`.
      overrides: of the modalities, of sizes larger than nano.
    """
    if size == "nano":
        return _nano(names, data=data, num_steps=num_steps, runlocal=runlocal, fake=fake)
    num_steps = num_steps or 100_000
    values: dict[str, Any] = {
        "size": sizes.get(size),
        "lr": 5e-4,
        "clip_norm": 3.0,
        "warmup_steps": min(5_000, num_steps // 10),
        "num_steps": num_steps,
        "batch_size": 256,
        "num_tokens": 128,
        "maskings_per_record": 4,
        "eval_every": eval_every,
        "overrides": overrides or {},
    }
    tokens = (pictures.tokens("base", names, data=data),)
    outputs = tuple(name for name in names if name != "rgb@224")
    return fourm.make(names, outputs, tokens, values, runlocal=runlocal, fake=fake)


def _nano(
    names: tuple[str, ...], *, data: str, num_steps: int, runlocal: bool, fake: bool
) -> ml_collections.ConfigDict:
    """The quickstart's trunk on other modalities."""
    tokens = pictures.tokens("nano", names, data=data)
    if fake:
        mixture = pictures.mixture("nano", names)
        tokens = datasets.fake_tokens("pictures", names, mixture, family="pictures")
    num_steps = num_steps or NUM_STEPS
    changes = {"num_steps": num_steps, "warmup_steps": min(200, num_steps // 10)}
    outputs = tuple(name for name in names if name in pictures.NANO_TARGETS)
    settings = scenes.settings("nano", tokens, runlocal, **changes)
    return trunk.make(family="pictures", inputs=names, outputs=outputs, **settings)
