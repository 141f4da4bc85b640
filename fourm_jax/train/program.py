"""The compiled parts of a run: initialization and step, laid out over a mesh."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh
from jaxtyping import Array, Key

from fourm_jax.parallel import sharding
from fourm_jax.train import optimizer, rates, run_config, step
from fourm_jax.train.state import TrainState
from fourm_jax.utils import hardware


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """The compiled parts of a run.

    Attributes:
      abstract: shapes, types and shardings of the state.
      root: key of the run, an argument of the others: runs of other seeds share a compilation.
      init: (example batch, root) -> state.
      train_step: (state, batch, root) -> (state, loss); donates the state.
    """

    abstract: TrainState
    root: Key[Array, ""]
    init: Callable[[Any, Key[Array, ""]], TrainState]
    train_step: Callable[[TrainState, Any, Key[Array, ""]], tuple[TrainState, Array]]


def make(
    config: ml_collections.ConfigDict, task: run_config.Task, mesh: Mesh, example: Any
) -> Program:
    """Jit initialization and step, with the layout of the whole state fixed by the rule table.

    `example` is a batch, or the shapes of one.
    """
    settings = run_config.settings(config)
    schedule = optimizer.make_schedule(settings, config.num_steps)
    root = jax.random.key(config.seed)
    # Traced once, for the shapes and for the first state; a model of 21 modalities takes seconds.
    initialize = jax.jit(task.init, inline=True)
    params, model_state = jax.eval_shape(initialize, root, example)
    names = step.metric_names(task, params, model_state, example, root)
    optimizer.check_selectors(settings, params)
    param_rates, state_rates = _rates(config, task, params, model_state)
    transform = rates.limit(optimizer.make(settings), param_rates)

    def first_state(batch, root):
        ema = settings.ema_decay > 0
        return step.init_state(initialize, names, transform, batch, root, ema=ema)

    shapes = jax.eval_shape(first_state, example, root)
    layout = sharding.state_shardings(shapes, mesh)
    train_step = step.make_train_step(
        task,
        transform,
        schedule,
        ema_decay=settings.ema_decay,
        rates=param_rates,
        state_rates=state_rates,
    )
    return Program(
        abstract=jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, layout
        ),
        root=root,
        init=jax.jit(first_state, out_shardings=layout),
        train_step=jax.jit(
            train_step,
            donate_argnums=0,
            out_shardings=(layout, None),
            compiler_options=hardware.compiler_options(mesh.devices.flat[0].platform),
        ),
    )


def _rates(
    config: ml_collections.ConfigDict, task: run_config.Task, params: Any, model_state: Any
) -> tuple[rates.Rates, rates.Rates]:
    """How fast the parameters learn, and what of the other variables is frozen."""
    settings, init = run_config.settings(config), run_config.init_settings(config)
    variables = {**params, **model_state}
    found = rates.make(
        variables,
        task.packed,
        freeze=init.freeze if init else "",
        never=task.never_learns,
        scales=settings.lr_scales,
        layer_decay=settings.layer_decay,
    )
    of_state = {p: r for p, r in found.by_path.items() if p.split("/")[0] in model_state}
    of_params = {p: r for p, r in found.by_path.items() if p not in of_state}
    return rates.Rates(of_params), rates.Rates(of_state)
