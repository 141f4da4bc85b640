"""One training step for every task: gradient, guarded update, metrics, all on the device."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from fourm_jax.models import parts
from fourm_jax.train import finite, schedules, state
from fourm_jax.train import metrics as metrics_lib
from fourm_jax.train import rates as rates_lib
from fourm_jax.utils import rng


class Aux(NamedTuple):
    """What a loss returns beside its value: metrics and the new `model_state`."""

    metrics: metrics_lib.Metrics
    model_state: Any


@runtime_checkable
class Task(Protocol):
    """What is trained: parameters and a loss over a global batch of device arrays."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the entries of vector metrics (those with "*" in their name)."""

    @property
    def flops_per_sample(self) -> float | None:
        """Floating-point operations of a step per sample, None when they are not counted."""

    @property
    def packed(self) -> parts.Packed:
        """Tables of the parameters that hold rows of several owners."""

    @property
    def function(self) -> Mapping[str, Any]:
        """What weights must have been trained with to mean the same here."""

    def init(self, key: Key[Array, ""], batch: Any) -> tuple[Any, Any]:
        """Return (params, model_state)."""

    def loss(
        self, params: Any, model_state: Any, batch: Any, key: Key[Array, ""], train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """Return the loss of the global batch and `Aux`."""


def init_state(
    init: Callable[[Key[Array, ""], Any], tuple[Any, Any]],
    names: Mapping[str, tuple[Any, Any]],
    optimizer: optax.GradientTransformation,
    batch: Any,
    root: Key[Array, ""],
    *,
    ema: bool,
) -> state.TrainState:
    """State before the first step; traceable, so that it can be jitted with out_shardings.

    Args:
      init: `Task.init`.
      names: see `metric_names`.
      root: key of the run.
    """
    params, model_state = init(rng.stream(root, "init"), batch)
    return state.create(params, model_state, optimizer, names, ema=ema)


def metric_names(
    task: Task, params: Any, model_state: Any, batch: Any, root: Key[Array, ""]
) -> dict[str, tuple[Any, Any]]:
    """Names and shapes of what a step adds up; of the arguments the shapes are enough."""

    def added(params: Any, model_state: Any, batch: Any, root: Key[Array, ""]) -> Any:
        zero = jnp.float32(0)
        _, aux = task.loss(params, model_state, batch, root, True)
        return {**aux.metrics, **_step_metrics(zero, zero, zero, jnp.bool_(True))}

    return jax.eval_shape(added, params, model_state, batch, root)


def make_train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    schedule: schedules.Schedule,
    *,
    ema_decay: float,
    rates: rates_lib.Rates = rates_lib.ALL,
    state_rates: rates_lib.Rates = rates_lib.ALL,
) -> Callable[[state.TrainState, Any, Key[Array, ""]], tuple[state.TrainState, Array]]:
    """Build (state, batch, root key) -> (state, loss), to be jitted with the state donated.

    The key is an argument, so that runs of other seeds share the compilation. Masking, dropout and
    code replacement draw from its stream "train" at the step, so a resumed run repeats them. A step
    whose loss or gradient is not finite changes neither parameters nor moments nor metrics. An
    element of the state that an update would make NaN or infinite keeps its value. The metric
    "skipped" counts the former and those whose update has no finite norm; their loss is NaN.

    Args:
      rates: what of the parameters is frozen, as `optimizer` knows it too (`rates.limit`).
      state_rates: what of `model_state` is frozen.
    """

    def task_loss(params: Any, *arguments: Any) -> Any:
        return task.loss(rates.without_gradient(params) if rates else params, *arguments)

    def train_step(
        old: state.TrainState, batch: Any, root: Key[Array, ""]
    ) -> tuple[state.TrainState, Array]:
        key = rng.step_key(root, "train", old.step)
        gradient = jax.value_and_grad(task_loss, has_aux=True)
        (loss, aux), grads = gradient(old.params, old.model_state, batch, key, True)
        grad_norm = optax.tree.norm(grads)
        good = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        lr = schedule(old.step)
        direction, opt_state = optimizer.update(grads, old.opt_state, old.params)
        params = jax.tree.map(lambda p, d: p - (lr * d).astype(p.dtype), old.params, direction)
        model_state = aux.model_state
        if state_rates:
            model_state = state_rates.hold(model_state, old.model_state)
        new = {"params": params, "model_state": model_state, "opt_state": opt_state}
        if ema_decay:
            average = optax.incremental_update(params, old.ema_params, 1 - ema_decay)
            new["ema_params"] = rates.hold(average, old.ema_params) if rates else average
        kept = {name: getattr(old, name) for name in new}
        new = jax.tree.map(lambda n, o: finite.select(good, n, o), new, kept)
        new, update_norm = _norm_beside(direction, new)
        update_norm *= lr
        of_task = {name: old.metrics[name] for name in aux.metrics}
        summed = metrics_lib.add(of_task, aux.metrics)
        summed = jax.tree.map(lambda n, o: jnp.where(good, n, o), summed, of_task)
        good &= jnp.isfinite(update_norm)
        of_step = _step_metrics(grad_norm, update_norm, lr, good)
        summed |= metrics_lib.add({name: old.metrics[name] for name in of_step}, of_step)
        loss = jnp.where(good, loss, jnp.nan)
        return old.replace(step=old.step + 1, metrics=summed, **new), loss

    return train_step


def _norm_beside(direction: Any, new: Any) -> tuple[Any, Float[Array, ""]]:
    """Return (`new`, the norm of `direction`), so that `new` is written in one pass.

    A compiler that sums `direction` up where it writes the parameters cannot write them over the
    old ones: it keeps moments, direction and parameters for three kernels, and copies. So it gets
    the sum to do after the pass, from the direction in bfloat16, half a pass to write and half to
    read; rounding changes the norm by less than a ten-thousandth.
    """
    rounded = jax.tree.map(lambda d: d.astype(jnp.bfloat16), direction)
    new, rounded = jax.lax.optimization_barrier((new, rounded))
    return new, optax.tree.norm(jax.tree.map(lambda d: d.astype(jnp.float32), rounded))


def _step_metrics(
    grad_norm: Array, update_norm: Array, lr: Array, good: Array
) -> metrics_lib.Metrics:
    used = good.astype(jnp.float32)
    return {
        "grad_norm": (jnp.where(good, grad_norm, 0.0), used),
        "update_norm": (jnp.where(good, update_norm, 0.0), used),
        "learning_rate": (lr, jnp.float32(1)),
        "skipped": (1 - used, jnp.float32(1)),
    }
