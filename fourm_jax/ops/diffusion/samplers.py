"""Samplers behind one interface: a plan (rows of constants), a state, one step."""

from collections.abc import Callable
from typing import Literal

import flax
import numpy as np
from jaxtyping import Array, Float, Int

from fourm_jax.contracts import AnyArray
from fourm_jax.ops.diffusion import dpm, pndm, process, schedules

Name = Literal["ddim", "ddpm", "pndm", "dpm"]
NAMES = ("ddim", "ddpm", "pndm", "dpm")
StepNoise = Callable[[Int[Array, ""]], Float[Array, "b *s"]]


@flax.struct.dataclass
class SingleStepPlan:
    """Rows of a DDIM or DDPM run: time of evaluation, cumulative alphas before and after.

    n is the axis of model evaluations, which a single row lacks.
    """

    timestep: Int[AnyArray, "*n"]
    alpha: Float[AnyArray, "*n"]
    alpha_next: Float[AnyArray, "*n"]


@flax.struct.dataclass
class SingleStepState:
    """The current image."""

    noised: Float[Array, "b *s"]


Plan = SingleStepPlan | pndm.Plan | dpm.Plan
State = SingleStepState | pndm.State | dpm.State


def plan(
    sampler: Name,
    alphas: Float[np.ndarray, "t"],
    num_steps: int,
    *,
    spacing: schedules.Spacing = "trailing",
    as_published: bool = False,
) -> Plan:
    """Return the rows of a sampling run.

    Args:
      sampler: one of `NAMES`.
      alphas: cumulative alphas of all training times.
      num_steps: times that are visited.
      spacing: see `diffusion_schedules.timesteps`; PNDM always uses "leading".
      as_published: use leading times for DDPM, whatever `spacing` says, and truncated strides.

    Raises:
      ValueError: unknown sampler.
    """
    if sampler not in NAMES:
        raise ValueError(f"sampler {sampler!r}, allowed: {NAMES}")
    if sampler == "pndm":
        return pndm.plan(alphas, num_steps)
    if as_published and sampler == "ddpm":
        spacing = "leading"
    num_times = len(alphas)
    times = schedules.timesteps(num_steps, spacing, num_times=num_times, as_published=as_published)
    goals = schedules.next_times(times, num_steps, num_times=num_times, as_published=as_published)
    alpha_next = np.where(goals >= 0, alphas[np.maximum(goals, 0)], np.float32(1))
    rows = (times, alphas[times], alpha_next)
    return dpm.plan(*rows) if sampler == "dpm" else SingleStepPlan(*rows)


def start(sampler: Name, noise: Float[Array, "b *s"]) -> State:
    """Return the state before the first step."""
    if sampler == "pndm":
        return pndm.start(noise)
    return dpm.start(noise) if sampler == "dpm" else SingleStepState(noise)


def step(
    sampler: Name,
    state: State,
    row: Plan,
    output: Float[Array, "b *s"],
    fresh_noise: Callable[[], Float[Array, "b *s"]],
    *,
    prediction: process.Prediction,
    clip: process.Range | None = None,
    eta: float = 0.0,
    as_published: bool = False,
) -> State:
    """Return the state after one row of the plan.

    `output` is the network's at (state.noised, row.timestep).

    `eta` is the share of the variance that DDIM draws anew (`diffusion.ddim_step`).
    """
    if isinstance(state, pndm.State):
        assert isinstance(row, pndm.Plan)
        return pndm.step(state, row, output, prediction=prediction, clip=clip)
    if isinstance(state, dpm.State):
        assert isinstance(row, dpm.Plan)
        return dpm.step(state, row, output, prediction=prediction, clip=clip)
    assert isinstance(row, SingleStepPlan)
    if sampler == "ddpm":
        reached, _ = process.ddpm_step(
            state.noised,
            output,
            row.alpha,
            row.alpha_next,
            fresh_noise(),
            prediction=prediction,
            clip=clip,
        )
    else:
        reached, _ = process.ddim_step(
            state.noised,
            output,
            row.alpha,
            row.alpha_next,
            prediction=prediction,
            clip=clip,
            eta=eta,
            noise=fresh_noise() if eta else None,
            as_published=as_published,
        )
    return SingleStepState(reached)
