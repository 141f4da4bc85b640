"""DPM-Solver++ (2M, Lu et al. 2022, algorithm 2): few steps, each extrapolating the clean image.

Between two times the estimate of the clean image changes about linearly in the log signal-to-noise
ratio, so every step goes towards the estimate that the last two of them point to. What counts how
much is known before sampling: it is data here, as in `pndm`.
"""

import math

import flax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fourm_jax.contracts import AnyArray
from fourm_jax.ops.diffusion import process


@flax.struct.dataclass
class Plan:
    """Rows of one sampling run; n is the axis of model evaluations, which a single row lacks.

    Attributes:
      timestep: at which the model is evaluated.
      alpha, alpha_next: cumulative alphas before and after.
      extrapolation: weight of the difference to the last estimate.
    """

    timestep: Int[AnyArray, "*n"]
    alpha: Float[AnyArray, "*n"]
    alpha_next: Float[AnyArray, "*n"]
    extrapolation: Float[AnyArray, "*n"]


@flax.struct.dataclass
class State:
    """The current image and the last estimate of the clean one."""

    noised: Float[Array, "b *s"]
    clean: Float[Array, "b *s"]


def plan(
    timestep: Int[np.ndarray, "n"],
    alpha: Float[np.ndarray, "n"],
    alpha_next: Float[np.ndarray, "n"],
) -> Plan:
    """Return the rows of a run through these times; every one but the first and last is of order 2.

    The first step has no earlier estimate (and starts at pure noise), the last one ends at the
    clean image, where there is nothing left to extrapolate to.
    """
    extrapolation = np.zeros(len(timestep), np.float32)
    for row in range(1, len(timestep) - 1):
        if alpha[row - 1] > 0:
            last = _log_snr(alpha[row]) - _log_snr(alpha[row - 1])
            here = _log_snr(alpha_next[row]) - _log_snr(alpha[row])
            extrapolation[row] = here / (2 * last)
    return Plan(timestep, alpha, alpha_next, extrapolation)


def _log_snr(alpha: np.floating) -> float:
    """Log of the signal-to-noise ratio, for 0 < alpha < 1."""
    return math.log(float(alpha) / (1 - float(alpha)))


def start(noised: Float[Array, "b *s"]) -> State:
    """Return the state before the first step."""
    return State(noised, jnp.zeros_like(noised))


def step(
    state: State,
    row: Plan,
    output: Float[Array, "b *s"],
    *,
    prediction: process.Prediction,
    clip: process.Range | None = None,
) -> State:
    """Return the state after one row; `output` is the network's at (state.noised, row.timestep)."""
    clean, _ = process.clean_and_noise(state.noised, output, row.alpha, prediction)
    clean = clean if clip is None else jnp.clip(clean, *clip)
    aim = clean + row.extrapolation * (clean - state.clean)
    noise = (state.noised - jnp.sqrt(row.alpha) * aim) / jnp.sqrt(1 - row.alpha)
    reached = jnp.sqrt(row.alpha_next) * aim + jnp.sqrt(1 - row.alpha_next) * noise
    return State(reached, clean)
