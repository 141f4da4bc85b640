"""Noise schedules and sampling times of diffusion, computed once on the host as constants."""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Spacing = Literal["trailing", "leading", "linspace"]
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")
SHIFTED = "shifted_cosine"
SPACINGS = ("trailing", "leading", "linspace")
MAX_BETA = 0.999
MAX_LOG_SNR = 15.0


def betas(
    name: str, num_times: int = 1000, start: float = 1e-4, end: float = 0.02
) -> Float[np.ndarray, "t"]:
    """Return the noise variance that each step adds, [num_times] float64.

    Source: docs/published.md#diffusion.

    "linear" (Ho et al. 2020, section 4); "scaled_linear" is linear in the standard deviation
    (latent diffusion); "squaredcos_cap_v2" (Nichol and Dhariwal 2021, equation 17), which takes
    neither `start` nor `end`; "sigmoid" is a logistic curve over -6..6.

    Raises:
      ValueError: unknown name.
    """
    if name == "linear":
        return np.linspace(start, end, num_times)
    if name == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, num_times) ** 2
    if name == "squaredcos_cap_v2":
        cosines = np.cos((np.linspace(0, 1, num_times + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - cosines[1:] / cosines[:-1], MAX_BETA)
    if name == "sigmoid":
        return (end - start) / (1 + np.exp(-np.linspace(-6, 6, num_times))) + start
    raise ValueError(f"beta schedule {name!r}, allowed: {BETAS} and '{SHIFTED}:<s>'")


def alphas_cumprod(
    name: str,
    num_times: int = 1000,
    *,
    zero_terminal_snr: bool = True,
    start: float = 1e-4,
    end: float = 0.02,
) -> Float[np.ndarray, "t"]:
    """Return the share of signal variance left at each time, [num_times] float32, decreasing.

    Args:
      name: one of `BETAS`, or "shifted_cosine:s": log-SNR = -2 (log tan(πt/2) + log s), clipped to
        ±15 (Hoogeboom et al. 2023, section 3.1); a larger s means more noise.
      num_times: training times.
      zero_terminal_snr: the last time holds no signal at all. Schedules made of betas are rescaled
        (Lin et al. 2023, algorithm 1); of the shifted cosine only the last value changes.
      start, end: first and last beta.

    Raises:
      ValueError: unknown name, s missing or not positive.
    """
    if name.startswith(SHIFTED):
        alphas = _shifted_cosine(name, num_times)
        if zero_terminal_snr:
            alphas[-1] = 0
    else:
        alphas = np.cumprod(1 - betas(name, num_times, start, end))
        if zero_terminal_snr:
            alphas = _rescale(alphas)
    return alphas.astype(np.float32)


def _shifted_cosine(name: str, num_times: int) -> Float[np.ndarray, "t"]:
    try:
        shift = float(name.removeprefix(f"{SHIFTED}:"))
    except ValueError:
        shift = 0.0
    if shift <= 0:
        raise ValueError(f"schedule {name!r}, expected '{SHIFTED}:<s>' with a positive number s")
    with np.errstate(divide="ignore"):  # log 0 at the first time, clipped below
        log_tangent = np.log(np.tan(np.pi / 2 * np.linspace(0, 1, num_times)))
    log_snr = np.clip(-2 * (log_tangent + np.log(shift)), -MAX_LOG_SNR, MAX_LOG_SNR)
    # float32 as published: near 1 the rounding decides how much noise there is at all
    return 1 / (1 + np.exp(-log_snr.astype(np.float32)))


def _rescale(alphas: Float[np.ndarray, "t"]) -> Float[np.ndarray, "t"]:
    """Shift sqrt(alphas) so that the last is 0, scale so that the first stays."""
    roots = np.sqrt(alphas)
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2


def timesteps(
    num_steps: int,
    spacing: Spacing = "trailing",
    *,
    num_times: int = 1000,
    as_published: bool = False,
) -> Int[np.ndarray, "n"]:
    """Return the times at which a sampler evaluates the model, [num_steps] int32, decreasing.

    "trailing" starts at the last time (where the zero-SNR training ends), "leading" ends at time 0,
    "linspace" does both (Lin et al. 2023, table 2). Example: 4 trailing steps of 1000 are 999, 749,
    499, 249.

    Args:
      num_steps: model evaluations, 1..num_times.
      spacing: see above.
      num_times: training times.
      as_published: stride by the truncated quotient, so that trailing gives more steps than
        asked where `num_steps` does not divide `num_times` (30 -> 31; docs/published.md#diffusion).

    Raises:
      ValueError: unknown spacing, or a number of steps outside the range.
    """
    if spacing not in SPACINGS:
        raise ValueError(f"spacing {spacing!r}, allowed: {SPACINGS}")
    if not 1 <= num_steps <= num_times:
        raise ValueError(f"{num_steps} sampling steps, allowed: 1..{num_times}")
    stride = num_times // num_steps if as_published else num_times / num_steps
    if spacing == "linspace":
        gaps = np.linspace(0, num_times - 1, num_steps)
        times = num_times - 1 - np.round(gaps)
    elif spacing == "leading":
        times = np.floor(np.arange(num_steps)[::-1] * stride)
    else:
        times = np.round(num_times - np.arange(0, num_times, stride)) - 1
        times = times if as_published else times[:num_steps]  # rounding may let one more in
    return times.astype(np.int32)


def next_times(
    times: Int[np.ndarray, "n"],
    num_steps: int,
    *,
    num_times: int = 1000,
    as_published: bool = False,
) -> Int[np.ndarray, "n"]:
    """Return the time that each step leads to; negative = the clean image.

    Args:
      times, num_steps, num_times: result and arguments of `timesteps`.
      as_published: go down by num_times // num_steps, which is not the next time of the list
        where the spacing is uneven (linspace, numbers that do not divide).
    """
    if as_published:
        return times - np.int32(num_times // num_steps)
    return np.append(times[1:], -1).astype(np.int32)
