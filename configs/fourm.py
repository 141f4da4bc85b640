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

import ml_collections

from configs.data import c4, cc12m
from fourm_jax.modalities import registry
from fourm_jax.models import sizes
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

MIXES = {
    "mod7": {
        "inputs": registry.MOD7_IN, "outputs": registry.MOD7_OUT,
        "batch_size": 8_192, "num_steps": 239_120, "num_tokens": 128,
        # Each loaded record is masked four times, as published: it only saves reading.
        "maskings_per_record": 4,
        "lr": {"base": 3.2e-3, "large": 3.2e-3, "xlarge": 6.4e-4},
        "remat": ("xlarge",),
    },
    "mod21": {
        "inputs": registry.MOD21_IN, "outputs": registry.MOD21_OUT,
        "batch_size": 4_096, "num_steps": 239_218, "num_tokens": 256,
        "maskings_per_record": 1,
        "lr": {"base": 1.6e-3, "large": 1.6e-3, "xlarge": 3.2e-4},
        "remat": ("large", "xlarge"),
    },
}  # fmt: skip
SHARES = {"cc12m": 0.6, "coyo700m": 0.2, "c4": 0.2}  # of mod21


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
    config = ml_collections.ConfigDict()
    config.task = "fourm"
    config.seed = 0
    config.batch_size = mix["batch_size"]
    config.num_steps = mix["num_steps"]
    config.log_every = 100
    config.checkpoint_every = 2_000
    config.keep_checkpoints = 3
    config.eval_every = 0
    config.max_bad_records = 0
    config.dtype = "bfloat16"
    config.loss = "mod"
    config.mesh = {"data": 1, "fsdp": -1, "tensor": 1}
    config.modalities = {
        "family": "fourm", "inputs": mix["inputs"], "outputs": mix["outputs"],
        # as many as the published position table, so that the model can be exported
        "overrides": {"human_poses": {"max_tokens": 263}} if args.mix == "mod21" else {},
    }  # fmt: skip
    config.model = {
        **sizes.get(args.size),
        "mlp": "swiglu", "mlp_dim": 0, "use_bias": False, "qk_norm": False, "num_registers": 0,
        "tie_heads": True, "positions": "sincos", "drop_path": 0.0,
        "remat": "full" if args.size in mix["remat"] else "none", "scan_unroll": 1,
    }  # fmt: skip
    config.masking = {
        "num_inputs": mix["num_tokens"], "num_targets": mix["num_tokens"], "budget": "fill",
        "maskings_per_record": mix["maskings_per_record"],
    }  # fmt: skip
    config.optimizer = {
        "name": "adamw", "lr": mix["lr"][args.size], "weight_decay": 0.05, "b1": 0.9, "b2": 0.95,
        "eps": 1e-8, "clip_norm": 3.0 if args.size == "xlarge" else 0.0, "schedule": "cosine",
        "warmup_steps": 4_769, "cooldown_steps": 0, "min_lr": 0.0, "ema_decay": 0.0,
    }  # fmt: skip
    config.data = datasets(args.mix, args.data)
    if args.runlocal:
        runlocal(config)
    return config.lock()


def datasets(mix: str, directory: str) -> tuple[ml_collections.ConfigDict, ...]:
    """The data sets of a mix, with their shares."""
    if mix == "mod7":
        return (cc12m.get_config(f"mod7={directory}/cc12m"),)
    parts = [cc12m.get_config(f"mod21={directory}/{name}") for name in ("cc12m", "coyo700m")]
    parts.append(c4.get_config(f"data={directory}/c4"))
    for part, (name, share) in zip(parts, SHARES.items(), strict=True):
        part.name, part.weight = name, share
    return tuple(parts)


def runlocal(config: ml_collections.ConfigDict) -> None:
    """Let `config` run in a minute on any laptop, in place: random data of small grids."""
    config.num_steps = 4
    config.batch_size = 8
    config.dtype = "float32"
    config.log_every = 2
    config.checkpoint_every = 2
    config.optimizer.warmup_steps = 2
    config.model.update({"dim": 32, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2})
    config.masking.update({"num_inputs": 32, "num_targets": 32})
    overrides = {}
    for spec in registry.resolve("fourm", config.modalities.inputs):
        if spec.kind == "grid":
            overrides[spec.name] = {"grid": (2, 2), "vocab_size": 64}
        elif spec.kind == "pixels":
            overrides[spec.name] = {"grid": (2, 2)}
        elif spec.kind == "embedding":
            overrides[spec.name] = {"embedding_dim": 16}
        else:
            overrides[spec.name] = {"vocab_size": 4_608 if spec.kind == "sequence" else 64}
    config.modalities.overrides = overrides
    for part in config.data:
        part.source = "fake"
        part.arguments = ml_collections.ConfigDict(
            {"family": "fourm", "names": tuple(part.fields), "overrides": overrides}
        )
        part.fields = {name: name for name in part.fields}
        mixture = part.mixture.to_dict()
        for key in ("input_range", "target_range"):
            mixture.pop(key, None)  # as many tokens as there are slots
        part.mixture = mixture
