"""Any-to-any model of the embedded 3-D scenes: the quickstart's trunk, and a larger one.

    python -m experiments.train --config=configs/scenes.py:size=nano --workdir=runs/quickstart/trunk

It reads the token shards that `make quickstart` writes to runs/quickstart/data (or
`python -m experiments.tokenize_dataset`). Global batch and tokens are stated per size below.

| size  | parameters | global batch | tokens in + out | steps | hardware    | time   |
|-------|------------|--------------|-----------------|-------|-------------|--------|
| nano  | 2.0 M      | 16           | 96 + 96         | 4,400 | 2 CPU cores | 8 min  |
| small | 6.0 M      | 16           | 96 + 128        | 10,000| 2 CPU cores | 60 min |
| small | 6.0 M      | 64           | 96 + 128        | 12,000| 1 H200      | 3 min  |

The last row, with two maskings of a record and other rates, is
`--config.batch_size=64 --config.num_steps=12000 --config.optimizer.lr=1.6e-3
--config.masking.maskings_per_record=2 --config.model.scan_unroll=1 --config.num_workers=6`.
"""

from typing import Any

import ml_collections

from configs import datasets, trunk
from configs.data import scenes as scenes_data
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

INPUTS = scenes_data.NAMES
OUTPUTS = scenes_data.TARGETS

SIZES: dict[str, dict[str, Any]] = {
    "nano": {
        "size": {"dim": 96, "encoder_depth": 3, "decoder_depth": 2, "num_heads": 2},
        "num_steps": 4_400,
        "num_targets": 96,
        "lr": 2e-3,
        "warmup_steps": 200,
        "palettes": False,
        "smooth_numbers": False,
    },
    "small": {
        "size": {"dim": 192, "encoder_depth": 4, "decoder_depth": 3, "num_heads": 3},
        "num_steps": 10_000,
        "num_targets": 128,
        "lr": 1e-3,
        "warmup_steps": 500,
        "palettes": True,
        "smooth_numbers": True,
    },
}
# What `runlocal` changes: small enough for any laptop to run it in a minute.
LOCAL: dict[str, Any] = {
    "size": {"dim": 32, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2},
    "num_steps": 4,
    "warmup_steps": 2,
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; `arg` is e.g. "size=small", "size=nano,runlocal" (two tiny minutes).

    Arguments: size ("nano", "small"), data (folder of token shards), runlocal (random data and a
    handful of steps: checks that everything runs, learns nothing).
    """
    args = config_lib.parse_arg(arg, size="nano", data="runs/quickstart/data", runlocal=False)
    data = tokens(args.size, args.data)
    if args.runlocal:
        data = datasets.fake_tokens(
            "scenes",
            INPUTS,
            data.mixture.to_dict(),
            family="scenes",
            num_records=64,
            overrides=scenes_data.OVERRIDES,
        )
    return of_size(args.size, data, args.runlocal)


def tokens(size: str, directory: str) -> ml_collections.ConfigDict:
    """Return the token shards in a folder, under the masks that a trunk of this size learns from.

    Raises:
      ValueError: an unknown size.
    """
    if size not in SIZES:
        raise ValueError(errors.unknown_value("size", size, SIZES))
    return scenes_data.tokens(directory, palettes=SIZES[size]["palettes"])


def of_size(
    size: str, data: ml_collections.ConfigDict, runlocal: bool = False
) -> ml_collections.ConfigDict:
    """Return the trunk of a size on `data`."""
    # Room for a caption, boxes and classes: what a picture is painted from.
    own = settings(size, data, runlocal, num_inputs=96)
    own["model"]["smooth_numbers"] = SIZES[size]["smooth_numbers"]
    return trunk.make(
        family="scenes",
        inputs=INPUTS,
        outputs=OUTPUTS,
        overrides=scenes_data.OVERRIDES,
        **own,
    )


def settings(
    size: str, data: ml_collections.ConfigDict, runlocal: bool, **changes: Any
) -> dict[str, Any]:
    """Return the arguments of `trunk.make` for a small trunk on `data`.

    Args:
      changes: other values of the size.
    """
    values = {**SIZES[size], **changes, **(LOCAL if runlocal else {})}
    unroll = 1 if runlocal else 4
    return {
        "data": (data,),
        "model": trunk.architecture(values["size"], positions="learned", scan_unroll=unroll),
        "optimizer": trunk.adamw(values["lr"], warmup_steps=values["warmup_steps"]),
        "batch_size": 8 if runlocal else 16,
        "num_steps": values["num_steps"],
        "num_inputs": values.get("num_inputs", 64),
        "num_targets": values["num_targets"],
        "loss": "token",
        "dtype": "float32",
        "log_every": 2 if runlocal else 50,
        "checkpoint_every": 2 if runlocal else 1_000,
        "keep_checkpoints": 2,
    }
