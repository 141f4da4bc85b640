"""PNDM runs as recorded schedulers were configured: other warm-ups, offsets and last alphas.

The package samples with the one variant that published tokenizers use, `ops.diffusion.pndm.plan`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from fourm_jax.ops.diffusion import pndm

RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


def plan(
    alphas: Float[np.ndarray, "t"],
    num_steps: int,
    *,
    runge_kutta: bool = False,
    offset: int = 1,
    last_alpha: float | None = None,
) -> pndm.Plan:
    """Return the rows of a run.

    Args:
      alphas: cumulative alphas of all training times.
      num_steps: times; 1 + num_steps model evaluations, or num_steps + 9 with `runge_kutta`.
      runge_kutta: warm up with three fourth-order steps; otherwise the first step is evaluated
        twice.
      offset: added to the times (1 in the published Stable Diffusion schedule).
      last_alpha: cumulative alpha that the last step reaches; None = that of time 0.
    """
    times = pndm.timesteps(len(alphas), num_steps, offset=offset)
    stride = len(alphas) // num_steps
    end = float(alphas[0]) if last_alpha is None else last_alpha

    def alpha(time: int) -> float:
        return float(alphas[time]) if time >= 0 else end

    num_warm_up = pndm.ORDER - 1 if runge_kutta else 1
    begin = _runge_kutta if runge_kutta else pndm.first_step
    rows = [row for time in times[:num_warm_up] for row in begin(alpha, time, stride)]
    rest = pndm.multistep(alpha, times[num_warm_up:], stride, num_earlier=num_warm_up)
    return pndm.stack(rows + rest)


def _runge_kutta(alpha: Callable[[int], float], time: int, stride: int) -> list[pndm.Plan]:
    """Rows of one fourth-order step."""
    half, full = time - stride // 2, time - stride
    first, second, third, last = RUNGE_KUTTA
    again: dict[str, Any] = {"restart": True, "remember": False}
    return [
        pndm.row(alpha, time, time, half, gather=first, first=True),
        pndm.row(alpha, half, time, half, gather=second, **again),
        pndm.row(alpha, half, time, full, gather=third, **again),
        pndm.row(alpha, full, time, full, newest=last, gathered=1.0, **again),
    ]
