"""The published any-to-any models, 4M-7 and 4M-21, trained from scratch on the published mixtures.

    python -m experiments.train --config=configs/fourm.py:mix=mod21,size=base --workdir=DIR

Data sets are folders of token shards below `data` (default "data"): cc12m, and for mod21 also
coyo700m and c4, which has captions alone (shares 0.6, 0.2, 0.2). The values are the published ones
(4M-7, arXiv:2312.06647; 4M-21, arXiv:2406.09406). Parameters in millions:

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

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections

from configs import datasets, mixtures, trunk
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
    },
    "mod21": {
        "inputs": registry.MOD21_IN,
        "outputs": registry.MOD21_OUT,
        "batch_size": 4_096,
        "num_tokens": 256,
        "maskings_per_record": 1,
        "lr": {"base": 1.6e-3, "large": 1.6e-3, "xlarge": 3.2e-4},
        # As many as the published position table, so that the model can be exported.
        "overrides": {"human_poses": {"max_tokens": 263}},
    },
}
# The state of "xlarge" leaves a device of 80 GB no room for more than the inputs of its blocks; one
# of 141 GB takes "names", which is faster (docs/performance.md#training-on-one-h200).
REMAT = {"base": "names", "large": "names", "xlarge": "full"}
SHARES = {"mod7": {"cc12m": 1.0}, "mod21": {"cc12m": 0.6, "coyo700m": 0.2, "c4": 0.2}}
# Blocks per iteration of the loop over blocks; 0: no loop. Nothing is then stacked: one H200 takes
# 16 % less time for "base", TPUs 36 to 45 % fewer cycles by their compiler, which takes up to three
# times as long (docs/performance.md#on-tpus-before-one-is-rented). With "full", as "xlarge" has it,
# a loop stacks the inputs of blocks alone, and costs 2 %.
SCAN_UNROLL = {"base": 0, "large": 0, "xlarge": 1}
NUM_TOKENS = 500e9  # of a published run; inputs and targets count, filled or not
NUM_WARMUP_TOKENS = 10e9
SHARDED = {"data": 1, "fsdp": -1, "tensor": 1}
# What `runlocal` changes: small enough to run in a minute on any laptop.
LOCAL: dict[str, Any] = {
    "size": {"dim": 32, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2},
    "num_steps": 4,
    "batch_size": 8,
    "num_tokens": 32,
    "warmup_steps": 2,
    "scan_unroll": 1,
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
    warmup_steps = schedules.warmup_for_tokens(NUM_WARMUP_TOKENS, **per_sample)
    values: dict[str, Any] = {
        "size": sizes.get(args.size),
        "remat": REMAT[args.size],
        "scan_unroll": SCAN_UNROLL[args.size],
        "lr": mix["lr"][args.size],
        "clip_norm": 3.0 if args.size == "xlarge" else 0.0,
        "warmup_steps": warmup_steps,
        "num_steps": schedules.steps_for_tokens(NUM_TOKENS, **per_sample),
        "batch_size": mix["batch_size"],
        "num_tokens": mix["num_tokens"],
        "maskings_per_record": mix["maskings_per_record"],
        "overrides": mix.get("overrides", {}),
        "mesh": SHARDED,
    }
    data = data_sets(args.mix, args.data)
    return make(mix["inputs"], mix["outputs"], data, values, runlocal=args.runlocal)


def make(
    inputs: Sequence[str],
    outputs: Sequence[str],
    data: Sequence[ml_collections.ConfigDict],
    values: Mapping[str, Any],
    *,
    runlocal: bool = False,
    fake: bool = True,
) -> ml_collections.ConfigDict:
    """Return a trunk like the published ones.

    Args:
      values: size, lr, warmup_steps, num_steps, batch_size, num_tokens, and what else differs.
      runlocal: small, a handful of steps.
      fake: where it is small, on random tokens in place of `data`.
    """
    values = {**values, "data": data, **(LOCAL if runlocal else {})}
    if runlocal and fake:
        values |= on_random_tokens(inputs, data)
    return trunk.make(
        family="fourm",
        inputs=inputs,
        outputs=outputs,
        data=values["data"],
        model=trunk.architecture(
            values["size"],
            positions="sincos",
            remat=values.get("remat", "none"),
            scan_unroll=values.get("scan_unroll", 1),
        ),
        optimizer=trunk.adamw(
            values["lr"], warmup_steps=values["warmup_steps"], clip_norm=values["clip_norm"]
        ),
        batch_size=values["batch_size"],
        num_steps=values["num_steps"],
        num_inputs=values["num_tokens"],
        num_targets=values["num_tokens"],
        loss="mod",
        dtype="float32" if runlocal else "bfloat16",
        log_every=2 if runlocal else 100,
        checkpoint_every=2 if runlocal else 2_000,
        keep_checkpoints=3,
        eval_every=values.get("eval_every", 0),
        maskings_per_record=values["maskings_per_record"],
        overrides=values.get("overrides"),
        mesh=values.get("mesh", trunk.REPLICATED),
        init=values.get("init"),
    )


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


def on_random_tokens(
    inputs: Iterable[str], data: Iterable[ml_collections.ConfigDict]
) -> dict[str, Any]:
    """Values of `make`: small grids, random tokens in place of `data`."""
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
    return {"overrides": overrides, "data": fake}


def _without_ranges(mixture: Mapping[str, Any]) -> dict[str, Any]:
    """The mixture with as many tokens as there are slots."""
    return {k: v for k, v in mixture.items() if k not in ("input_range", "target_range")}
