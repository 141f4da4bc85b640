"""The optimizer by name: clipping, an update direction from optax, masked weight decay."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import optax
import optax.contrib

from fourm_jax.train import schedules
from fourm_jax.utils import errors, tree

# Norms, biases, scales of channels, registers, the mask token, learned queries, the vector of a
# dropped condition, and the tables of tokens, positions, modalities and codes. The published code
# decays all but norms and biases (docs/published.md#defects): PUBLISHED_NO_DECAY.
_TABLES = r"tokens$|embedding$|codes$|positions/|pos_emb|mask_token|register|query$|dropped$"
NO_DECAY = (rf"norm|bias$|scale$|{_TABLES}",)
PUBLISHED_NO_DECAY = (r"norm|bias$",)
MOMENT_DTYPES = ("float32", "bfloat16")
NAMES = ("adamw", "adafactor", "lion", "muon")
# Orthogonalized updates suit hidden matrices only; tables and heads stay with Adam.
_NOT_ORTHOGONAL = rf"norm|bias$|{_TABLES}|heads|encoder_embedding"
# Which axes of a kernel are its input and output; leading (scanned) axes are a batch.
_MATRIX_AXES = (
    (r"attention/(q|kv|qkv)/kernel$", (-4,), (-2, -1)),  # [d, count, h, k], a matrix per count
    (r"attention/out/kernel$", (-3, -2), (-1,)),  # [h, k, d]
    (r"", (-2,), (-1,)),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What `config.optimizer` holds; fields have the names of the config keys.

    Attributes:
      name: one of `NAMES`.
      lr, schedule, warmup_steps, cooldown_steps, min_lr, timescale: see `schedules.make`.
      weight_decay: decoupled, multiplied by the learning rate.
      b1, b2, eps: moments of the optimizers that have them.
      clip_norm: largest global gradient norm; 0 = off.
      ema_decay: of the running average of the parameters; 0 = none is kept.
      accumulate_steps: parts of a batch, computed one after the other before the one update; only
        for the trunk.
      moment_dtype: of first moments; "bfloat16" saves a sixth of the memory traffic of an AdamW
        update. Second moments stay float32, and Adafactor has no first ones.
      no_decay: regexes over parameter paths that weight decay leaves alone.
      lr_scales, layer_decay: see `rates.make`; the regexes hold no dots.
    """

    name: str = "adamw"
    lr: float
    weight_decay: float = 0.05
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    clip_norm: float = 0.0
    schedule: str = "cosine"
    warmup_steps: int = 0
    cooldown_steps: int = 0
    min_lr: float = 0.0
    timescale: float = 10_000.0
    ema_decay: float = 0.0
    accumulate_steps: int = 1
    moment_dtype: str = "float32"
    no_decay: tuple[str, ...] = NO_DECAY
    lr_scales: Mapping[str, float] = dataclasses.field(default_factory=dict)
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(errors.unknown_value("optimizer", self.name, NAMES))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"optimizer.{field.name} {value} is not finite")
        for name in ("lr", "weight_decay", "clip_norm", "min_lr"):
            if getattr(self, name) < 0:
                raise ValueError(f"optimizer.{name} {getattr(self, name)} is negative")
        if self.min_lr > self.lr:
            raise ValueError(f"optimizer.min_lr {self.min_lr} is above optimizer.lr {self.lr}")
        if self.accumulate_steps < 1:
            raise ValueError(f"optimizer.accumulate_steps {self.accumulate_steps}, at least 1")
        if self.moment_dtype not in MOMENT_DTYPES:
            raise ValueError(
                f"unknown optimizer.moment_dtype {self.moment_dtype!r}, allowed: {MOMENT_DTYPES}"
            )
        if self.name == "adafactor" and self.moment_dtype != "float32":
            raise ValueError(
                f"optimizer.moment_dtype {self.moment_dtype!r} of adafactor, allowed: 'float32'; "
                "it keeps no first moment"
            )
        for pattern, scale in self.lr_scales.items():
            if not (isinstance(scale, int | float) and 0 <= scale < math.inf):
                raise ValueError(
                    f"optimizer.lr_scales[{pattern!r}] {scale!r}, allowed: numbers >= 0"
                )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"optimizer.layer_decay {self.layer_decay}, allowed: 0 < x <= 1")
        for name in ("eps", "timescale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"optimizer.{name} {getattr(self, name)}, must be positive")
        for name in ("b1", "b2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name} {getattr(self, name)}, allowed: 0 <= x < 1")


def make_schedule(settings: Settings, num_steps: int) -> schedules.Schedule:
    """Learning rate per step, as `settings` asks for it."""
    return schedules.make(
        settings.schedule,
        lr=settings.lr,
        num_steps=num_steps,
        warmup_steps=settings.warmup_steps,
        cooldown_steps=settings.cooldown_steps,
        min_lr=settings.min_lr,
        timescale=settings.timescale,
    )


def check_selectors(settings: Settings, params: Any) -> None:
    """Refuse a `no_decay` regex of the config's own that matches no parameter.

    Raises:
      ValueError: names the regex and some of the paths.
    """
    own = tuple(p for p in settings.no_decay if p not in NO_DECAY + PUBLISHED_NO_DECAY)
    tree.matches(own, params, "optimizer.no_decay")


def make(settings: Settings) -> optax.GradientTransformation:
    """Build gradient -> update direction; the train step multiplies it by -learning rate.

    The rate stays outside so that it follows the step of the run and can be logged as used.
    """

    def decays(updates: Any) -> Any:
        return tree.map_named(
            lambda name, _: not any(re.search(p, name) for p in settings.no_decay), updates
        )

    stages = [optax.clip_by_global_norm(settings.clip_norm)] if settings.clip_norm else []
    stages.append(_direction(settings))
    if settings.weight_decay:
        stages.append(optax.add_decayed_weights(settings.weight_decay, mask=decays))
    return optax.chain(*stages)


def _direction(settings: Settings) -> optax.GradientTransformation:
    moments: dict[str, Any] = {"b1": settings.b1, "b2": settings.b2}
    moments["mu_dtype"] = settings.moment_dtype
    match settings.name:
        case "adamw":
            return optax.scale_by_adam(**moments, eps=settings.eps)
        case "lion":
            return optax.scale_by_lion(**moments)
        # The last two end with a factor of -1, which the train step applies itself.
        case "adafactor":
            return optax.chain(optax.adafactor(learning_rate=None), optax.scale(-1.0))
        case "muon":
            return optax.chain(_muon(settings), optax.scale(-1.0))


def _muon(settings: Settings) -> optax.GradientTransformation:
    """Orthogonalize each hidden matrix, at the update size of AdamW so that its rates carry over.

    That size is an RMS of 0.2 (arXiv:2502.16982, section 2.2).
    """
    return optax.contrib.muon(
        learning_rate=1.0,
        beta=settings.b2,
        adam_b1=settings.b1,
        adam_b2=settings.b2,
        eps=settings.eps,
        mu_dtype=settings.moment_dtype,
        muon_weight_dimension_numbers=lambda params: tree.map_named(_matrix_axes, params),
        consistent_rms=0.2,
    )


def _matrix_axes(name: str, leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
    """Input and output axes of a hidden matrix; None leaves a parameter to Adam."""
    if leaf.ndim < 2 or re.search(_NOT_ORTHOGONAL, name):
        return None
    axes = (
        (inputs, outputs) for pattern, inputs, outputs in _MATRIX_AXES if re.search(pattern, name)
    )
    inputs, outputs = next(axes)  # the last pattern matches every name
    return optax.contrib.MuonDimensionNumbers(reduction_axis=inputs, output_axis=outputs)
