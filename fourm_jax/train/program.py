"""The compiled parts of a run: initialisation and step, laid out over a mesh."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh

from fourm_jax.parallel import sharding
from fourm_jax.train import optimizer, run_config, step
from fourm_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """The compiled parts of a run.

    Attributes:
      abstract: shapes, types and shardings of the state.
      init: example batch -> state.
      train_step: (state, batch) -> (state, loss); donates the state.
    """

    abstract: TrainState
    init: Callable[[Any], TrainState]
    train_step: Callable[[TrainState, Any], tuple[TrainState, jax.Array]]


def make(config: ml_collections.ConfigDict, task: step.Task, mesh: Mesh, example: Any) -> Program:
    """Jit initialisation and step, with the layout of the whole state fixed by the rule table.

    `example` is a batch, or the shapes of one.
    """
    settings = run_config.settings(config)
    schedule = optimizer.make_schedule(settings, config.num_steps)
    transform = optimizer.make(settings)

    def init(batch):
        return step.init_state(task, transform, batch, seed=config.seed, ema=settings.ema_decay > 0)

    shapes = jax.eval_shape(init, example)
    optimizer.check_selectors(settings, shapes.params)
    layout = sharding.state_shardings(shapes, mesh)
    train_step = step.make_train_step(
        task, transform, schedule, seed=config.seed, ema_decay=settings.ema_decay
    )
    return Program(
        abstract=jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, layout
        ),
        init=jax.jit(init, out_shardings=layout),
        train_step=jax.jit(train_step, donate_argnums=0, out_shardings=(layout, None)),
    )
