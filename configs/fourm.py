"""The published any-to-any models, 4M-7 and 4M-21, trained from scratch on the published mixtures.

    python -m experiments.train --config=configs/fourm.py:mix=mod21,size=base --workdir=DIR

Data sets are folders of token shards below `data` (default "data"): cc12m, and for mod21 also
coyo700m and c4, which has captions alone (shares 0.6, 0.2, 0.2). The values are the published ones
(4M-7, arXiv 2312.06647; 4M-21, arXiv 2406.09406). Parameters in millions:

| mix   | size   | parameters | global batch | tokens in + out | steps   | lr     | published on |
|-------|--------|------------|--------------|-----------------|---------|--------|--------------|
| mod7  | base   | 361        | 8,192        | 128 + 128       | 239,120 | 3.2e-3 | 64 A100      |
| mod7  | large  | 922        | 8,192        | 128 + 128       | 239,120 | 3.2e-3 | 128 A100     |
| mod7  | xlarge | 3,255      | 8,192        | 128 + 128       | 239,120 | 6.4e-4 | 128 A100     |
| mod21 | base   | 624        | 4,096        | 256 + 256       | 239,218 | 1.6e-3 | 64 A100      |
| mod21 | large  | 1,272      | 4,096        | 256 + 256       | 239,218 | 1.6e-3 | 64 A100      |
| mod21 | xlarge | 3,956      | 4,096        | 256 + 256       | 239,218 | 3.2e-4 | 128 A100     |

The published 4M-21 models start from the 4M-7 model of their size. No run of these is recorded yet.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

from configs import datasets, mixtures
from configs.data import cc12m
from fourm_jax.modalities import registry
from fourm_jax.models import sizes
from fourm_jax.train import schedules
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

MIXES: dict[str, dict[str, Any]] = {
    "mod7": {
        "inputs": registry.MOD7_IN,
        "outputs": registry.MOD7_OUT,
        "batch_size": 8_192,
        "num_tokens": 128,
        # Each loaded record is masked four times, as published: it only saves reading.
        "maskings_per_record": 4,
        "lr": {"base": 3.2e-3, "large": 3.2e-3, "xlarge": 6.4e-4},
        "remat": ("xlarge",),
    },
    "mod21": {
        "inputs": registry.MOD21_IN,
        "outputs": registry.MOD21_OUT,
        "batch_size": 4_096,
        "num_tokens": 256,
        "maskings_per_record": 1,
        "lr": {"base": 1.6e-3, "large": 1.6e-3, "xlarge": 3.2e-4},
        "remat": ("large", "xlarge"),
        # As many as the published position table, so that the model can be exported.
        "overrides": {"human_poses": {"max_tokens": 263}},
    },
}
SHARES = {"mod7": {"cc12m": 1.0}, "mod21": {"cc12m": 0.6, "coyo700m": 0.2, "c4": 0.2}}
NUM_TOKENS = 500e9  # of a published run; inputs and targets count, filled or not
NUM_WARMUP_TOKENS = 10e9
SHARDED = {"data": 1, "fsdp": -1, "tensor": 1}
# What `runlocal` changes: small enough to run in a minute on any laptop.
LOCAL: dict[str, Any] = {
    "model": {"dim": 32, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2},
    "num_steps": 4,
    "batch_size": 8,
    "num_tokens": 32,
    "warmup_steps": 2,
    "dtype": "float32",
    "log_every": 2,
    "checkpoint_every": 2,
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; `arg` is e.g. "mix=mod7,size=large", "mix=mod21,runlocal".

    Arguments: mix ("mod7", "mod21"), size ("base", "large", "xlarge"), data (folder of the data
    sets), runlocal (random data, a small model, a handful of steps: checks that everything runs).
    """
    args = config_lib.parse_arg(arg, mix="mod21", size="base", data="data", runlocal=False)
    if args.mix not in MIXES:
        raise ValueError(errors.unknown_value("mix", args.mix, MIXES))
    mix = MIXES[args.mix]
    if args.size not in mix["lr"]:
        raise ValueError(errors.unknown_value("size", args.size, mix["lr"]))
    per_sample = {"tokens_per_sample": 2 * mix["num_tokens"], "batch_size": mix["batch_size"]}
    settings: dict[str, Any] = {
        "model": sizes.get(args.size),
        "remat": "full" if args.size in mix["remat"] else "none",
        "num_steps": schedules.steps_for_tokens(NUM_TOKENS, **per_sample),
        "batch_size": mix["batch_size"],
        "num_tokens": mix["num_tokens"],
        "maskings_per_record": mix["maskings_per_record"],
        "lr": mix["lr"][args.size],
        "clip_norm": 3.0 if args.size == "xlarge" else 0.0,
        "warmup_steps": schedules.warmup_for_tokens(NUM_WARMUP_TOKENS, **per_sample),
        "overrides": mix.get("overrides", {}),
        "data": data_sets(args.mix, args.data),
    }
    if args.runlocal:
        settings |= local(mix["inputs"], settings["data"])
    return trunk(inputs=mix["inputs"], outputs=mix["outputs"], **settings)


def data_sets(mix: str, directory: str) -> tuple[ml_collections.ConfigDict, ...]:
    """The data sets of a mix in folders below `directory`, with their shares."""
    found = []
    for name, share in SHARES[mix].items():
        data = f"{directory}/{name}"
        if name == "c4":  # captions alone
            found.append(
                datasets.tokens(name, ("caption",), mixtures.c4(), data=data, weight=share)
            )
        else:
            found.append(cc12m.tokens(mix, data, name=name, weight=share))
    return tuple(found)


def local(inputs: Iterable[str], data: Iterable[ml_collections.ConfigDict]) -> dict[str, Any]:
    """Settings of `trunk` for any laptop: `LOCAL`, small grids, random tokens for `data`."""
    overrides: dict[str, Any] = {}
    for spec in registry.resolve("fourm", inputs):
        if spec.kind == "grid":
            overrides[spec.name] = {"grid": (2, 2), "vocab_size": 64}
        elif spec.kind == "pixels":
            overrides[spec.name] = {"grid": (2, 2)}
        elif spec.kind == "embedding":
            overrides[spec.name] = {"embedding_dim": 16}
        else:
            overrides[spec.name] = {"vocab_size": 4_608 if spec.kind == "sequence" else 64}
    fake = tuple(
        datasets.fake_tokens(
            one.name,
            tuple(one.fields),
            _without_ranges(one.mixture.to_dict()),
            family="fourm",
            weight=one.weight,
            overrides=overrides,
        )
        for one in data
    )
    return {**LOCAL, "overrides": overrides, "data": fake}


def _without_ranges(mixture: Mapping[str, Any]) -> dict[str, Any]:
    """The mixture with as many tokens as there are slots."""
    return {k: v for k, v in mixture.items() if k not in ("input_range", "target_range")}


def trunk(
    *,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    overrides: Mapping[str, Any],
    data: tuple[ml_collections.ConfigDict, ...],
    model: Mapping[str, int],
    remat: str,
    num_steps: int,
    batch_size: int,
    num_tokens: int,
    maskings_per_record: int,
    lr: float,
    clip_norm: float,
    warmup_steps: int,
    checkpoint_every: int = 2_000,
    log_every: int = 100,
    eval_every: int = 0,
    dtype: str = "bfloat16",
    mesh: Mapping[str, int] = SHARDED,
) -> ml_collections.ConfigDict:
    """Return the config of a trunk like the published ones: every value that a run depends on."""
    config = ml_collections.ConfigDict()
    config.task = "fourm"
    config.seed = 0
    config.batch_size = batch_size
    config.num_steps = num_steps
    config.log_every = log_every
    config.checkpoint_every = checkpoint_every
    config.keep_checkpoints = 3
    config.eval_every = eval_every
    config.max_bad_records = 0
    config.dtype = dtype
    config.loss = "mod"
    config.mesh = dict(mesh)
    config.modalities = {
        "family": "fourm",
        "inputs": inputs,
        "outputs": outputs,
        "overrides": dict(overrides),
    }
    config.model = {
        **model,
        "mlp": "swiglu",
        "mlp_dim": 0,
        "use_bias": False,
        "qk_norm": False,
        "num_registers": 0,
        "tie_heads": True,
        "positions": "sincos",
        "drop_path": 0.0,
        "remat": remat,
        "scan_unroll": 1,
    }
    config.masking = {
        "num_inputs": num_tokens,
        "num_targets": num_tokens,
        "budget": "fill",
        "maskings_per_record": maskings_per_record,
    }
    config.optimizer = {
        "name": "adamw",
        "lr": lr,
        "weight_decay": 0.05,
        "b1": 0.9,
        "b2": 0.95,
        "eps": 1e-8,
        "clip_norm": clip_norm,
        "schedule": "cosine",
        "warmup_steps": warmup_steps,
        "cooldown_steps": 0,
        "min_lr": 0.0,
        "ema_decay": 0.0,
    }
    config.data = data
    return config.lock()
