"""Pseudo linear multistep sampling (PNDM, Liu et al. 2022) as a table of weights, one row per step.

Every step extrapolates from the outputs at earlier times instead of evaluating the model more
often. Which outputs count how much is known before sampling, so it is data here and the same
arithmetic serves every step, also inside a scan.
"""

import flax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fourm_jax.ops.diffusion import process

# Adams-Bashforth weights of the newest and of earlier outputs, by how many earlier ones there are.
MULTISTEP = (
    (1.0, 0.0, 0.0, 0.0),
    (3 / 2, -1 / 2, 0.0, 0.0),
    (23 / 12, -16 / 12, 5 / 12, 0.0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
ORDER = 4


@flax.struct.dataclass
class Plan:
    """Rows of one sampling run; every field has the leading axis n of model evaluations.

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

    timestep: Int[np.ndarray, "n"]
    alpha: Float[np.ndarray, "n"]
    alpha_next: Float[np.ndarray, "n"]
    newest: Float[np.ndarray, "n"]
    gathered: Float[np.ndarray, "n"]
    earlier: Float[np.ndarray, "n 3"]
    gather: Float[np.ndarray, "n"]
    first: Bool[np.ndarray, "n"]
    restart: Bool[np.ndarray, "n"]
    remember: Bool[np.ndarray, "n"]


@flax.struct.dataclass
class State:
    """The current image, the image of the last `first` row, the running sum, earlier outputs."""

    noised: Float[Array, "b *s"]
    start: Float[Array, "b *s"]
    running: Float[Array, "b *s"]
    earlier: Float[Array, "3 b *s"]


def plan(
    alphas: Float[np.ndarray, "t"],
    num_steps: int,
    *,
    runge_kutta: bool = False,
    offset: int = 1,
    last_alpha: float | None = None,
) -> Plan:
    """Return the rows of a run over `num_steps` evenly spaced ("leading") times.

    Args:
      alphas: cumulative alphas of all training times.
      num_steps: times; 1 + num_steps model evaluations, or num_steps + 9 with `runge_kutta`.
      runge_kutta: warm up with three fourth-order steps; otherwise the first step is evaluated
        twice.
      offset: added to the times (1 in the published Stable Diffusion schedule).
      last_alpha: cumulative alpha that the last step reaches; None = that of time 0.

    Raises:
      ValueError: fewer than 4 steps, which the extrapolation needs.
    """
    num_times = len(alphas)
    if not ORDER <= num_steps <= num_times:
        raise ValueError(f"{num_steps} PNDM steps, allowed: {ORDER}..{num_times}")
    stride = num_times // num_steps
    times = [time * stride + offset for time in reversed(range(num_steps))]

    def alpha(time: int) -> float:
        return alphas[time] if time >= 0 else (alphas[0] if last_alpha is None else last_alpha)

    rows = []

    def add(timestep, source, goal, newest=1.0, gathered=0.0, earlier=(0.0,) * 3, **more):
        flags = {"gather": 0.0, "first": False, "restart": False, "remember": True, **more}
        rows.append(
            {"timestep": timestep, "alpha": alpha(source), "alpha_next": alpha(goal)}
            | {"newest": newest, "gathered": gathered, "earlier": earlier, **flags}
        )

    if runge_kutta:
        for time in times[: ORDER - 1]:
            half, full = time - stride // 2, time - stride
            w = RUNGE_KUTTA
            add(time, time, half, gather=w[0], first=True)
            add(half, time, half, gather=w[1], restart=True, remember=False)
            add(half, time, full, gather=w[2], restart=True, remember=False)
            add(full, time, full, w[3], 1.0, restart=True, remember=False)
        num_earlier, rest = ORDER - 1, times[ORDER - 1 :]
    else:
        time, full = times[0], times[0] - stride
        add(time, time, full, gather=0.5, first=True)
        add(full, time, full, 0.5, 1.0, restart=True, remember=False)
        num_earlier, rest = 1, times[1:]
    for i, time in enumerate(rest):
        weights = MULTISTEP[min(num_earlier + i, ORDER - 1)]
        add(time, time, time - stride, weights[0], earlier=weights[1:])
    return _stack(rows)


def _stack(rows: list[dict]) -> Plan:
    types = {"timestep": np.int32, "first": bool, "restart": bool, "remember": bool}
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return Plan(**{n: np.array(c, types.get(n, np.float32)) for n, c in columns.items()})


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
    """Return the state after one row; `output` answers (state.noised, row.timestep).

    Outputs are combined as the network gives them and then read as `prediction` (equation 9).
    """
    source = jnp.where(row.restart, state.start, state.noised)
    running = jnp.where(row.first, 0.0, state.running)
    used = row.newest * output + row.gathered * running
    used += jnp.einsum("e,e...->...", row.earlier, state.earlier)
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
