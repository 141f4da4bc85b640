"""What the configs of transfers are made of: every key that a run depends on, once."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from configs import trunk
from fourm_jax.models import lora

SCRATCH = "scratch"  # init of a run that starts from nothing
LABELS = {
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "mirror": False,
    "modality_dropout": 0.0,
    "merge": "none",
    "lora_rank": 0,
    "lora_pattern": lora.ATTENTION,
    "think": (),
    "tokenizers": "",
    "num_train": 0,
    "num_test": 0,
}


def make(
    *,
    init: str,
    family: str,
    inputs: Sequence[str | Mapping[str, Any]],
    outputs: Sequence[str] = (),
    model: Mapping[str, Any],
    labels: Mapping[str, Any],
    data: Mapping[str, Any],
    optimizer: Mapping[str, Any],
    batch_size: int,
    num_steps: int,
    overrides: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    seed: int = 0,
    log_every: int = 50,
    checkpoint_every: int = 0,
    mesh: Mapping[str, int] = trunk.REPLICATED,
) -> ml_collections.ConfigDict:
    """Return the config of a transfer.

    Args:
      init: run folder, folder or Hub id of the trunk, or `SCRATCH`.
      family, inputs, overrides: modalities of the trunk that are read, the first one a picture;
        raw ones as mappings (`models.from_config.RAW_KEYS`).
      outputs: whose positions the decoder is asked for; none: the encoder alone.
      model: of `trunk.architecture`.
      labels: problem, num_outputs, head, and what differs from `LABELS`.
      data: name, source, arguments and fields of the labelled records.
      optimizer: of `optimizer`.
    """
    config = ml_collections.ConfigDict()
    config.task = "transfer"
    config.seed = seed
    config.batch_size = batch_size
    config.num_steps = num_steps
    config.log_every = log_every
    config.checkpoint_every = checkpoint_every
    config.keep_checkpoints = 1
    config.eval_every = 0
    config.max_left_out_records = 0
    config.dtype = dtype
    config.mesh = dict(mesh)
    config.modalities = {"family": family, "inputs": tuple(inputs), "outputs": tuple(outputs)}
    config.modalities.overrides = dict(overrides or {})
    config.model = dict(model)
    config.transfer = {**LABELS, **labels}
    config.optimizer = dict(optimizer)
    config.data = (dict(data),)
    vectors = [one["name"] for one in inputs if not isinstance(one, str) and "width" in one]
    if init != SCRATCH:
        config.init = {
            "source": init,
            "rename": {"^(trunk|thinker)/": ""},
            "reset": "|".join(["^(head|adapters)/", *(rf"[/_]{name}(/|$)" for name in vectors)]),
            "freeze": "",  # the task keeps what adapters adapt, and what thinks first
        }
    elif config.transfer.lora_rank or config.transfer.think:
        raise ValueError("adapters and thinking first need a trained model: name it with init=")
    return config.lock()


def optimizer(
    lr: float,
    *,
    warmup_steps: int,
    layer_decay: float = 1.0,
    scales: Mapping[str, float] | None = None,
    weight_decay: float = 0.05,
    b2: float = 0.999,
    ema_decay: float = 0.0,
) -> dict[str, Any]:
    """Return AdamW with a cosine schedule, the encoder slower the deeper it lies.

    Args:
      scales: {regex on the names of parameters: factor on their rate}.
    """
    adamw = trunk.adamw(
        lr, warmup_steps=warmup_steps, weight_decay=weight_decay, b2=b2, ema_decay=ema_decay
    )
    return {**adamw, "layer_decay": layer_decay, "lr_scales": dict(scales or {})}
