"""tokenizers/: VQ-VAEs, MLPs and DiVAEs, stage by stage, and every sampling run of the DiVAEs."""

import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity import near_ties, pndm_variants
from experiments.parity import quantity as quantities
from experiments.parity.quantity import Quantity, Recorded
from fourm_jax.convert import divae_config, fourm_config, safetensors_io, tokenizer_config
from fourm_jax.convert import tokenizers as convert
from fourm_jax.convert.report import Report
from fourm_jax.ops.diffusion import process, samplers, schedules
from fourm_jax.tokenizers.diffusion_autoencoder import DiffusionAutoencoder

FILES = (
    "model.safetensors",
    "config.json",
    "meta.json",
    "inputs.safetensors",
    "outputs.safetensors",
    "runs.json",
)
SAMPLERS: Mapping[str, samplers.Name] = {
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "PNDMScheduler": "pndm",
}
RUN_FIELDS = ("tag", "scheduler", "steps", "mode", "kwargs", "eta")
SCHEDULER_ARGUMENTS = (
    "num_train_timesteps",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "prediction_type",
    "zero_terminal_snr",
    "thresholding",
    "clip_sample",
)
PNDM_ARGUMENTS = ("skip_prk_steps", "set_alpha_to_one", "steps_offset")


def cases(folder: pathlib.Path) -> Iterator[tuple[str, Iterator[Quantity]]]:
    """One case per folder."""
    for path in sorted(folder.iterdir()):
        yield path.name, check(path)


def check(directory: pathlib.Path) -> Iterator[Quantity]:
    """Everything of one tokenizer."""
    yield from quantities.unknown(p.name for p in directory.iterdir() if p.name not in FILES)
    config, weights = fourm_config.read(directory)
    meta = directory / "meta.json"
    presets = json.loads(meta.read_text()).get("tiny_presets", {}) if meta.exists() else {}
    family, arguments = tokenizer_config.arguments_of(config, presets=presets)
    tensors = safetensors_io.Tensors(safetensors_io.SafeFile(weights))
    inputs = quantities.load(directory / "inputs.safetensors")
    outputs = Recorded(quantities.load(directory / "outputs.safetensors"))
    module, variables, report = convert.import_tensors(family, arguments, tensors)
    if (directory / "runs.json").exists():
        runs = json.loads((directory / "runs.json").read_text())["runs"]
        assert isinstance(module, DiffusionAutoencoder)
        yield from diffusion_stages(module, variables, inputs, outputs)
        for run in runs:
            yield from replay(module, variables, run, inputs, outputs)
    else:
        yield from all_stages(module, variables, inputs, outputs)
    yield from round_trip(module, variables, report, tensors)
    yield from outputs.unread()


def all_stages(
    module: nn.Module,
    variables: Mapping[str, Any],
    inputs: Mapping[str, np.ndarray],
    outputs: Recorded,
) -> Iterator[Quantity]:
    """Every intermediate value of a reconstruction, at every recorded input size."""
    run = jax.jit(lambda raw: module.apply(variables, raw, method="stages"))
    for tag in sorted({name.split("/")[0] for name in inputs}):
        x = inputs[f"{tag}/x"]
        stages = run(x if module.signal.kind == "classes" else np.moveaxis(x, 1, -1))
        yield from compare_stages(module, variables, stages, outputs, f"{tag}/")


def compare_stages(
    module: nn.Module,
    variables: Mapping[str, Any],
    found: Mapping[str, jax.Array],
    outputs: Recorded,
    prefix: str = "",
) -> Iterator[Quantity]:
    """Recorded entries that have a stage of the same name.

    Where an id differs at a near tie, what follows is computed from the recorded id.
    """
    stages: dict[str, Any] = dict(found)
    gaps, name = np.zeros(0), f"{prefix}tokens"
    if name in outputs:
        tokens, latents = np.asarray(stages["tokens"]), np.asarray(stages["quant_proj_out"])
        recorded = _ids_last(outputs[name], tokens.shape)
        gaps = near_ties.gaps(module.quantizer, variables, latents, tokens, recorded)
        if near_ties.allowed(tokens, recorded, gaps):
            values = module.apply(
                variables, jnp.asarray(recorded), method=lambda m, ids: m.quantizer.lookup(ids)
            )
            stages |= {"quant": values, "tokens_to_embedding": values}
            if "decoded" in stages:
                stages["decoded"] = module.apply(variables, values, method="decode_latents")
    for name, value in stages.items():
        if prefix + name not in outputs:
            continue
        expected = outputs[prefix + name]
        value = np.moveaxis(np.asarray(value), -1, 1)
        if name == "tokens":
            aligned = np.moveaxis(gaps, -1, 1).reshape(expected.shape)
            yield Quantity(prefix + name, value.reshape(expected.shape), expected, gaps=aligned)
        else:
            yield Quantity(prefix + name, value, expected)


def _ids_last(ids: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Recorded ids [b, (heads,) y, x] as ours, [b, y, x, heads]."""
    return np.moveaxis(ids.reshape(shape[0], shape[-1], *shape[1:-1]), 1, -1)


def diffusion_stages(
    module: DiffusionAutoencoder,
    variables: Mapping[str, Any],
    inputs: Mapping[str, np.ndarray],
    outputs: Recorded,
) -> Iterator[Quantity]:
    """Codes of the encoder, one pass of the decoder, noising and velocity."""
    stages = jax.jit(lambda x: module.apply(variables, x, method="stages"))
    found = stages(_channels_last(inputs["x"]))
    yield from compare_stages(module, variables, found, outputs)
    denoise = _denoiser(module, variables, _channels_last(outputs["quant"]))
    noised, times = _channels_last(outputs["noised"]), jnp.asarray(inputs["timesteps"])
    used = jnp.asarray(~inputs["cond_mask"])
    for name, mask in (
        ("decoder_forward", jnp.ones_like(used)),
        ("forward_dec", jnp.ones_like(used)),
        ("decoder_forward_cond_mask", used),
    ):
        if name in outputs:
            found = _channels_first(denoise(noised, times, mask))
            yield Quantity(name, found, outputs[name])
    alpha = jnp.asarray(module.alphas)[inputs["timesteps"]]
    clean, noise = _channels_last(inputs["x"]), _channels_last(inputs["noise"])
    for name, found in (
        ("noised", process.add_noise(clean, noise, alpha)),
        ("velocity", process.velocity(clean, noise, alpha)),
    ):
        yield Quantity(name, _channels_first(found), outputs[name])


def replay(
    module: DiffusionAutoencoder,
    variables: Mapping[str, Any],
    run: Mapping[str, Any],
    inputs: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
) -> Iterator[Quantity]:
    """One sampling run, step by step, with the recorded noise."""
    tag, sampler, options = run["tag"], SAMPLERS.get(run["scheduler"]), run["kwargs"]
    allowed = SCHEDULER_ARGUMENTS + (PNDM_ARGUMENTS if sampler == "pndm" else ())
    strange = [name for name in run if name not in RUN_FIELDS]
    strange += [f"kwargs/{name}" for name in options if name not in allowed]
    if sampler is None or strange:
        names = strange or [run["scheduler"]]
        yield from quantities.unknown(f"{tag}/{name}" for name in names)
        return
    clip = (-1.0, 1.0) if options.get("thresholding") or options.get("clip_sample") else None
    prediction = module.prediction
    if "prediction_type" in options:
        prediction = divae_config.PREDICTIONS[options["prediction_type"]]
    plan, eta = run_plan(module, run, sampler), run.get("eta", 0.0)
    yield Quantity(f"{tag}/timesteps", plan.timestep, outputs[f"{tag}/timesteps"])
    values = _channels_last(outputs["quant"])
    denoise = _denoiser(module, variables, values)
    mask = jnp.ones(values.shape[:3], bool)
    fresh = [_channels_last(x) for x in inputs.get(f"{tag}/variance_noise", [])]
    noise = _channels_last(inputs[f"{tag}/init_noise"])
    state = samplers.start(sampler, noise)
    answers, samples = outputs[f"{tag}/model_outputs"], outputs[f"{tag}/prev_samples"]
    for i in range(len(plan.timestep)):
        row = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), plan)
        answer = denoise(state.noised, jnp.full(len(noise), row.timestep), mask)
        state = samplers.step(
            sampler,
            state,
            row,
            answer,
            functools.partial(_fresh_noise, fresh, i, noise),
            prediction=prediction,
            clip=clip,
            eta=eta,
            as_published=True,
        )
        if i < len(answers):
            yield Quantity(f"{tag}/model_outputs/{i}", _channels_first(answer), answers[i])
            yield Quantity(f"{tag}/prev_samples/{i}", _channels_first(state.noised), samples[i])
    yield Quantity(f"{tag}/image", _channels_first(state.noised), outputs[f"{tag}/image"])


def _fresh_noise(recorded: Sequence[jax.Array], i: int, like: jax.Array) -> jax.Array:
    return recorded[i] if i < len(recorded) else jnp.zeros_like(like)


def run_plan(
    module: DiffusionAutoencoder, run: Mapping[str, Any], sampler: samplers.Name
) -> samplers.Plan:
    """Times and alphas of a run, whose scheduler may differ from the one of the config."""
    options = run["kwargs"]
    alphas = schedules.alphas_cumprod(
        options.get("beta_schedule", module.schedule),
        options.get("num_train_timesteps", module.num_times),
        zero_terminal_snr=options.get("zero_terminal_snr", sampler != "pndm"),
        start=options.get("beta_start", 1e-4),
        end=options.get("beta_end", 0.02),
    )
    if sampler != "pndm":
        return samplers.plan(sampler, alphas, run["steps"], spacing=run["mode"], as_published=True)
    return pndm_variants.plan(
        alphas,
        run["steps"],
        runge_kutta=not options.get("skip_prk_steps", False),
        offset=options.get("steps_offset", 0),
        last_alpha=1.0 if options.get("set_alpha_to_one") else None,
    )


def round_trip(
    module: nn.Module,
    variables: Mapping[str, Any],
    report: Report,
    tensors: Mapping[str, np.ndarray],
) -> Iterator[Quantity]:
    """Out again with the published names, bit for bit."""
    exported = convert.export_tensors(module, variables)
    yield Quantity("export/names", sorted(exported), sorted(tensors))
    same = [
        n for n in report.used if np.array_equal(exported[n], tensors[n].astype(exported[n].dtype))
    ]
    yield Quantity("export/bits", sorted(same), sorted(report.used))
    for name in report.derived:
        published = tensors[name]
        tolerance = quantities.table_tolerance(published.dtype)
        published = published.astype(np.float32)
        yield Quantity(f"export/{name}", exported[name], published, tolerance)


def _denoiser(
    module: DiffusionAutoencoder, variables: Mapping[str, Any], values: jax.Array
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    @jax.jit
    def denoise(noised: jax.Array, times: jax.Array, mask: jax.Array) -> jax.Array:
        answer: Any = module.apply(variables, noised, times, values, mask, method="denoise")
        return answer

    return denoise


def _channels_last(x: np.ndarray) -> jax.Array:
    return jnp.asarray(np.moveaxis(x, -3, -1))


def _channels_first(x: jax.Array) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, -3)
