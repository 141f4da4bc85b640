"""Pseudo linear multistep sampling (PNDM, Liu et al. 2022) as a table of weights, one row per step.

Every step extrapolates from the outputs at earlier times instead of evaluating the model more
often. Which outputs count how much is known before sampling, so it is data here and the same
arithmetic serves every step, also inside a scan.
"""

from collections.abc import Callable, Sequence

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fourm_jax.contracts import AnyArray
from fourm_jax.ops.diffusion import process

# Adams-Bashforth weights of the newest and of earlier outputs, by how many earlier ones there are.
MULTISTEP = (
    (1.0, 0.0, 0.0, 0.0),
    (3 / 2, -1 / 2, 0.0, 0.0),
    (23 / 12, -16 / 12, 5 / 12, 0.0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
ORDER = 4


@flax.struct.dataclass
class Plan:
    """Rows of one sampling run; n is the axis of model evaluations, which a single row lacks.

    Attributes:
      timestep: at which the model is evaluated.
      alpha, alpha_next: cumulative alphas of the transfer.
      newest, gathered, earlier: weights of this output, of the running sum, of the last three
        remembered outputs.
      gather: weight with which this output enters the running sum.
      first: the running sum and the point to go from start here.
      restart: go from the point that the last `first` row started at.
      remember: this output joins the earlier ones.
    """

    timestep: Int[AnyArray, "*n"]
    alpha: Float[AnyArray, "*n"]
    alpha_next: Float[AnyArray, "*n"]
    newest: Float[AnyArray, "*n"]
    gathered: Float[AnyArray, "*n"]
    earlier: Float[AnyArray, "*n 3"]
    gather: Float[AnyArray, "*n"]
    first: Bool[AnyArray, "*n"]
    restart: Bool[AnyArray, "*n"]
    remember: Bool[AnyArray, "*n"]


@flax.struct.dataclass
class State:
    """The current image, the image of the last `first` row, the running sum, earlier outputs."""

    noised: Float[Array, "b *s"]
    start: Float[Array, "b *s"]
    running: Float[Array, "b *s"]
    earlier: Float[Array, "3 b *s"]


def plan(alphas: Float[np.ndarray, "t"], num_steps: int) -> Plan:
    """Return the rows of a run over `num_steps` evenly spaced ("leading") times.

    The model is evaluated 1 + `num_steps` times, see `first_step`.

    Raises:
      ValueError: fewer than 4 steps, which the extrapolation needs.
    """
    times = timesteps(len(alphas), num_steps, offset=1)
    stride = len(alphas) // num_steps

    def alpha(time: int) -> float:
        return float(alphas[max(time, 0)])

    rows = first_step(alpha, times[0], stride)
    return stack(rows + multistep(alpha, times[1:], stride, num_earlier=1))


def timesteps(num_times: int, num_steps: int, *, offset: int) -> list[int]:
    """Return evenly spaced times, decreasing to `offset`.

    Raises:
      ValueError: fewer than 4 steps, or more than there are times.
    """
    if not ORDER <= num_steps <= num_times:
        raise ValueError(f"{num_steps} PNDM steps, allowed: {ORDER}..{num_times}")
    stride = num_times // num_steps
    return [time * stride + offset for time in reversed(range(num_steps))]


def row(
    alpha: Callable[[int], float],
    timestep: int,
    source: int,
    goal: int,
    *,
    newest: float = 1.0,
    gathered: float = 0.0,
    earlier: Sequence[float] = (0.0, 0.0, 0.0),
    gather: float = 0.0,
    first: bool = False,
    restart: bool = False,
    remember: bool = True,
) -> Plan:
    """Return one row, without the leading axis: evaluate at `timestep`, go from `source` to `goal`.

    Args:
      alpha: time -> cumulative alpha; a negative time is the end of the run.
      timestep, source, goal: times.
      newest, gathered, earlier, gather, first, restart, remember: see `Plan`.
    """
    return Plan(
        timestep=np.asarray(timestep, np.int32),
        alpha=np.asarray(alpha(source), np.float32),
        alpha_next=np.asarray(alpha(goal), np.float32),
        newest=np.asarray(newest, np.float32),
        gathered=np.asarray(gathered, np.float32),
        earlier=np.asarray(earlier, np.float32),
        gather=np.asarray(gather, np.float32),
        first=np.asarray(first),
        restart=np.asarray(restart),
        remember=np.asarray(remember),
    )


def first_step(alpha: Callable[[int], float], time: int, stride: int) -> list[Plan]:
    """Return the rows of a step without earlier outputs: taken twice, then with the mean output."""
    goal = time - stride
    return [
        row(alpha, time, time, goal, gather=0.5, first=True),
        row(alpha, goal, time, goal, newest=0.5, gathered=1.0, restart=True, remember=False),
    ]


def multistep(
    alpha: Callable[[int], float], times: Sequence[int], stride: int, *, num_earlier: int
) -> list[Plan]:
    """Return the rows that extrapolate, after `num_earlier` outputs are remembered."""
    rows = []
    for i, time in enumerate(times):
        newest, *earlier = MULTISTEP[min(num_earlier + i, ORDER - 1)]
        rows.append(row(alpha, time, time, time - stride, newest=newest, earlier=earlier))
    return rows


def stack(rows: Sequence[Plan]) -> Plan:
    """Return single rows as one plan."""
    return jax.tree.map(lambda *values: np.stack(values), *rows)


def start(noised: Float[Array, "b *s"]) -> State:
    """Return the state before the first step."""
    return State(noised, noised, jnp.zeros_like(noised), jnp.zeros((ORDER - 1, *noised.shape)))


def step(
    state: State,
    row: Plan,
    output: Float[Array, "b *s"],
    *,
    prediction: process.Prediction,
    clip: process.Range | None = None,
) -> State:
    """Return the state after one row; `output` is the network's at (state.noised, row.timestep).

    Outputs are combined as the network gives them and then read as `prediction` (equation 9).
    """
    source = jnp.where(row.restart, state.start, state.noised)
    running = jnp.where(row.first, 0.0, state.running)
    used = jnp.asarray(row.newest * output + row.gathered * running)
    used = used + jnp.einsum("e,e...->...", row.earlier, state.earlier)
    reached, _ = process.ddim_step(
        source, used, row.alpha, row.alpha_next, prediction=prediction, clip=clip
    )
    earlier = jnp.concatenate([output[None], state.earlier[:-1]])
    return State(
        noised=reached,
        start=jnp.where(row.first, state.noised, state.start),
        running=running + row.gather * output,
        earlier=jnp.where(row.remember, earlier, state.earlier),
    )
