"""Everything that a run carries from step to step; all of it is checkpointed and sharded."""

from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from fourm_jax.train import metrics as metrics_lib


class TrainState(flax.struct.PyTreeNode):
    """State after `step` steps.

    Attributes:
      step: number of steps taken, also the index of the next batch.
      params: learned arrays, float32.
      model_state: other collections of the module that training changes, e.g. {"codebook": …}.
      opt_state: of optax.
      ema_params: running average of `params`, None when it is off.
      metrics: sums and counts since the last log point.
    """

    step: Int[Array, ""]
    params: Any
    model_state: Any
    opt_state: Any
    ema_params: Any
    metrics: metrics_lib.Metrics

    @property
    def eval_params(self) -> Any:
        """Parameters to evaluate and to generate with: the average where one is kept."""
        return self.params if self.ema_params is None else self.ema_params


def create(
    params: Any,
    model_state: Any,
    optimizer: optax.GradientTransformation,
    metrics: Mapping[str, tuple[Any, Any]],
    *,
    ema: bool,
) -> TrainState:
    """State before the first step; `metrics` gives names and shapes, its sums start at zero.

    Weakly typed arrays (`jnp.full(shape, 1.0)`) become strong: the step returns strong ones, and
    another type would compile it twice.
    """
    params, model_state = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), (params, model_state))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        ema_params=jax.tree.map(jnp.copy, params) if ema else None,
        metrics=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), dict(metrics)),
    )
