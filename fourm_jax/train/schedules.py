"""Learning rate as a function of the step, and the token accounting that fixes its lengths."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fourm_jax.utils import errors

Schedule = Callable[[Int[Array, ""] | int], Float[Array, ""]]
NAMES = ("constant", "cosine", "inverse_sqrt", "wsd")
EPOCH_SIZE = 10_000_000  # samples of a published epoch


def make(
    name: str,
    *,
    lr: float,
    num_steps: int,
    warmup_steps: int = 0,
    cooldown_steps: int = 0,
    min_lr: float = 0.0,
    timescale: float = 10_000.0,
) -> Schedule:
    """Build step (0-based) -> learning rate, float32; equals the published per-step tables.

    Source: docs/published.md#training. Warm-up rises linearly from 0 to `lr`, both ends
    included, then:
      constant: lr. cosine: half a period from lr towards min_lr.
      inverse_sqrt: lr / sqrt((i + timescale) / timescale), at least min_lr. wsd: lr.
    All but cosine end with `cooldown_steps` of linear decay to min_lr, both ends included.
    Steps beyond the last one keep the last value.

    Raises:
      ValueError: unknown name, or warm-up and cool-down that do not fit into num_steps.
    """
    if name not in NAMES:
        raise ValueError(errors.unknown_value("schedule", name, NAMES))
    if name == "cosine" and cooldown_steps:
        raise ValueError(f"schedule 'cosine' has no cool-down: cooldown_steps {cooldown_steps}")
    main_steps = num_steps - warmup_steps - cooldown_steps
    if min(main_steps, warmup_steps, cooldown_steps) < 0:
        raise ValueError(
            f"warmup_steps {warmup_steps} + cooldown_steps {cooldown_steps} do not fit into "
            f"num_steps {num_steps}"
        )

    def main(i):
        if name == "cosine":
            angle = jnp.pi * jnp.clip(i / max(main_steps, 1), 0, 1)
            return min_lr + 0.5 * (lr - min_lr) * (1 + jnp.cos(angle))
        if name == "inverse_sqrt":
            return jnp.maximum(lr / jnp.sqrt((jnp.maximum(i, 0) + timescale) / timescale), min_lr)
        return jnp.full_like(i, lr)

    def schedule(step):
        step = jnp.minimum(jnp.asarray(step, jnp.float32), max(num_steps - 1, 0))
        i = step - warmup_steps
        rise = lr * step / max(warmup_steps - 1, 1)
        peak = main(jnp.float32(max(main_steps - 1, 0)))
        fall = peak + (min_lr - peak) * (i - main_steps) / max(cooldown_steps - 1, 1)
        in_cooldown = i >= main_steps if cooldown_steps else False
        return jnp.where(i < 0, rise, jnp.where(in_cooldown, fall, main(i)))

    return schedule


def extendable(name: str, *, num_steps: int, cooldown_steps: int, step: int) -> bool:
    """Whether a run of `num_steps` that stands at `step` would be the same had it been longer."""
    return name != "cosine" and step <= num_steps - cooldown_steps


def steps_for_tokens(num_tokens: float, *, tokens_per_sample: int, batch_size: int) -> int:
    """Number of steps of a published run: whole epochs of 10 M samples, rounded up.

    `tokens_per_sample` is the budget, inputs + targets, filled or not (docs/published.md#training):
    500e9 tokens at 128 + 128 and batch 8,192 are 196 epochs × 1,220 = 239,120 steps.
    """
    num_epochs = math.ceil(num_tokens / (tokens_per_sample * EPOCH_SIZE))
    return num_epochs * (EPOCH_SIZE // batch_size)


def warmup_for_tokens(num_tokens: float, *, tokens_per_sample: int, batch_size: int) -> int:
    """Warm-up steps for a token budget: 10e9 at 256 per sample and batch 8,192 are 4,769."""
    return math.ceil(num_tokens / (tokens_per_sample * batch_size))
