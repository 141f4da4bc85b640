"""schedulers/: noise schedules, times, and single steps of DDIM, DDPM and PNDM."""

import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.parity import pndm_variants
from experiments.parity import quantity as quantities
from experiments.parity.quantity import Quantity, Recorded
from fourm_jax.contracts import AnyArray
from fourm_jax.convert import divae_config
from fourm_jax.ops.diffusion import pndm, process, samplers
from fourm_jax.ops.diffusion import schedules as diffusion_schedules

FILES = ("meta.json", "schedulers.safetensors")
TABLES = ("alphas_cumprod", "betas", "alphas_cumprod_pndm")
STEP_FIELDS = {
    "key",
    "scheduler",
    "num_train_timesteps",
    "beta_schedule",
    "prediction_type",
    "clip_sample",
    "thresholding",
    "num_steps",
    "mode",
    "t",
    "eta",
    "zero_terminal_snr",
}
STATED = "num_train_timesteps"
PNDM_STEPS = 10
TOLERANCE = (5e-6, 0.0)


def cases(folder: pathlib.Path) -> Iterator[tuple[str, Iterator[Quantity]]]:
    """The parts of the one recording; the last case is what none of them read."""
    for path in sorted(folder.iterdir()):
        if path.name not in FILES:
            yield path.name, quantities.unknown(["(file)"])
    tensors = Recorded(quantities.load(folder / "schedulers.safetensors"))
    meta = json.loads((folder / "meta.json").read_text())
    num_times = training_times(tensors, meta)
    if num_times is None:
        yield "num_train_timesteps", quantities.unknown(["(several)"])
        return
    yield "schedules", schedules(tensors, meta, num_times)
    yield "timesteps", timesteps(meta, num_times)
    yield "steps", steps(tensors, meta)
    yield "noising", noising(tensors, meta, num_times)
    yield "pndm", trajectories(tensors, meta, num_times)
    left = list(tensors.unread())
    known = ("steps", "timesteps", "add_noise_timesteps", "pndm", "alphas_times", STATED)
    left += quantities.unknown(f"meta/{name}" for name in meta if name not in known)
    if left:
        yield "other", iter(left)


def training_times(tensors: Recorded, meta: Mapping[str, Any]) -> int | None:
    """Training times of the recorded schedulers: as stated once, as many as whole tables have, or
    those of every step; None where these say several."""
    if STATED in meta:
        return meta[STATED]
    whole = [name for name in tensors if name.split("/")[0] in TABLES and name.count("/") == 1]
    if whole and "alphas_times" not in meta:
        found = {len(tensors[name]) for name in whole}
    else:
        found = {step[STATED] for step in meta["steps"]}
    return found.pop() if len(found) == 1 else None


def schedules(tensors: Recorded, meta: Mapping[str, Any], num_times: int) -> Iterator[Quantity]:
    """Betas and cumulative alphas, whole or at the times that the description names."""
    for name in tensors:
        kind, schedule, *rest = name.split("/")
        if kind not in TABLES or rest not in ([], ["zsnr0"], ["zsnr1"]):
            continue
        rows = num_times if "alphas_times" in meta else len(tensors[name])
        found = diffusion_schedules.alphas_cumprod(
            schedule, rows, zero_terminal_snr=rest == ["zsnr1"]
        )
        if kind == "betas":
            found = betas_of(found)
        times = list(meta.get("alphas_times", range(len(found))))
        yield Quantity(name, np.asarray(found)[times], tensors[name], TOLERANCE)


def betas_of(alphas: Float[np.ndarray, "t"]) -> Float[np.ndarray, "t"]:
    """Betas whose cumulative product gives `alphas`."""
    alphas = alphas.astype(np.float64)
    return 1 - alphas / np.concatenate([[1.0], alphas[:-1]])


def noise_of_velocity(
    noised: Float[AnyArray, "b *s"], velocity: Float[AnyArray, "b *s"], alpha: Float[AnyArray, "b"]
) -> Float[Array, "b *s"]:
    """Noise in `noised`, given its velocity."""
    return process.clean_and_noise(jnp.asarray(noised), jnp.asarray(velocity), alpha, "v")[1]


def timesteps(meta: Mapping[str, Any], num_times: int) -> Iterator[Quantity]:
    """Times of every sampler, spacing and number of steps."""
    alphas = diffusion_schedules.alphas_cumprod("linear", num_times)
    for name, expected in meta["timesteps"].items():
        sampler, spacing, *count = name.split("/")
        plan: samplers.Plan
        if sampler == "pndm":
            num_steps = int(count[0]) if count else PNDM_STEPS
            plan = pndm_variants.plan(alphas, num_steps, runge_kutta="skip0" in spacing)
        else:
            plan = samplers.plan(sampler, alphas, int(count[0]), spacing=spacing, as_published=True)
        times = np.asarray(plan.timestep).tolist()
        if isinstance(expected[-1], list):  # long ones: length, first three, last three
            times = [len(times), times[:3], times[-3:]]
        yield Quantity(name, times, expected)


def steps(tensors: Recorded, meta: Mapping[str, Any]) -> Iterator[Quantity]:
    """One step from a given time, the noise given."""
    sample, output, noise = (
        jnp.asarray(tensors[f"in/{name}"]) for name in ("sample", "model_output", "noise")
    )
    schedules = {}
    for step in meta["steps"]:
        key = step["key"]
        if set(step) - STEP_FIELDS or step["scheduler"] not in ("ddim", "ddpm"):
            yield from quantities.unknown([key])
            continue
        num_times, zero = step["num_train_timesteps"], step.get("zero_terminal_snr", True)
        made = (step["beta_schedule"], num_times, zero)
        if made not in schedules:
            schedules[made] = diffusion_schedules.alphas_cumprod(*made[:2], zero_terminal_snr=zero)
        alphas = schedules[made]
        goal = step["t"] - num_times // step["num_steps"]
        alpha, alpha_next = np.asarray(alphas[step["t"]]), np.ones((), np.float32)
        alpha_next = np.asarray(alphas[goal]) if goal >= 0 else alpha_next
        read: dict[str, Any] = {
            "prediction": divae_config.PREDICTIONS[step["prediction_type"]],
            "clip": (-1.0, 1.0) if step.get("clip_sample") or step.get("thresholding") else None,
        }
        if step["scheduler"] == "ddim":
            read |= {"eta": step.get("eta", 0.0), "noise": noise, "as_published": True}
            found = process.ddim_step(sample, output, alpha, alpha_next, **read)
        else:
            found = process.ddpm_step(sample, output, alpha, alpha_next, noise, **read)
        for value, part in zip(found, ("prev_sample", "pred_original_sample"), strict=True):
            yield Quantity(f"{key}/{part}", value, tensors[f"{key}/{part}"])


def noising(tensors: Recorded, meta: Mapping[str, Any], num_times: int) -> Iterator[Quantity]:
    """Noised samples, velocities, and the noise of a velocity."""
    functions: dict[str, Callable[..., Array]] = {
        "add_noise": process.add_noise,
        "get_velocity": process.velocity,
        "get_noise": noise_of_velocity,
    }
    sample, noise = tensors["in/sample"], tensors["in/noise"]
    for name in tensors:
        kind, _, schedule = name.partition("/")
        if kind in functions:
            alphas = diffusion_schedules.alphas_cumprod(schedule, num_times)
            alpha = alphas[meta["add_noise_timesteps"]]
            yield Quantity(name, functions[kind](sample, noise, alpha), tensors[name])


def trajectories(tensors: Recorded, meta: Mapping[str, Any], num_times: int) -> Iterator[Quantity]:
    """PNDM from start to end; the network's answers are a formula that the description states."""
    words = re.search(r"beta_schedule (\S+?) ([\d.]+?)\.\.([\d.]+), .*?(\d+) steps", meta["pndm"])
    assert words, meta["pndm"]
    name, start, end, num_steps = words.groups()
    stated = re.search(r"steps_offset (\d+)", meta["pndm"])
    offset = int(stated[1]) if stated else 0
    alphas = diffusion_schedules.alphas_cumprod(
        name, num_times, zero_terminal_snr=False, start=float(start), end=float(end)
    )
    noise = tensors["in/noise"]
    for key in tensors:
        match = re.fullmatch(r"pndm/skip([01])_(\w+)/trajectory", key)
        if not match:
            continue
        plan = pndm_variants.plan(
            alphas, int(num_steps), runge_kutta=match[1] == "0", offset=offset
        )
        prediction = divae_config.PREDICTIONS[match[2]]

        def step(
            state: pndm.State,
            numbered: tuple[Array, pndm.Plan],
            num_rows: int = len(plan.timestep),
            prediction: process.Prediction = prediction,
        ) -> tuple[pndm.State, Array]:
            index, row = numbered
            answer = 0.4 * state.noised + 0.2 * noise * (index + 1) / num_rows
            state = pndm.step(state, row, answer, prediction=prediction)
            return state, state.noised

        rows = (jnp.arange(len(plan.timestep)), plan)
        _, found = jax.lax.scan(step, pndm.start(jnp.asarray(tensors["in/sample"])), rows)
        yield Quantity(key, found, tensors[key])
