"""tokenizers/: VQ-VAEs, MLPs and DiVAEs, stage by stage, and every sampling run of the DiVAEs."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from fourm_jax.convert import tokenizer_config
from fourm_jax.convert import tokenizers as convert
from fourm_jax.ops import diffusion, diffusion_sampling
from fourm_jax.train.verify import near_ties
from fourm_jax.train.verify import quantity as quantities
from fourm_jax.train.verify.quantity import Quantity, Recorded

FILES = (
    "model.safetensors", "config.json", "meta.json", "inputs.safetensors", "outputs.safetensors",
    "runs.json",
)  # fmt: skip
SAMPLERS = {"DDIMScheduler": "ddim", "DDPMScheduler": "ddpm", "PNDMScheduler": "pndm"}
TABLES = (2e-5, 0.0)  # sin-cos buffers are computed, not stored


def cases(folder: pathlib.Path) -> Iterator[tuple[str, Iterator[Quantity]]]:
    """One case per folder."""
    for path in sorted(folder.iterdir()):
        yield path.name, check(path)


def check(directory: pathlib.Path) -> Iterator[Quantity]:
    """Everything of one tokenizer."""
    yield from quantities.unknown(p.name for p in directory.iterdir() if p.name not in FILES)
    config = json.loads((directory / "config.json").read_text())
    presets = json.loads((directory / "meta.json").read_text()).get("tiny_presets", {})
    family, arguments = tokenizer_config.arguments_of(config, presets=presets, compat="ml-4m")
    tensors, inputs, outputs = (
        load_file(directory / f"{name}.safetensors") for name in ("model", "inputs", "outputs")
    )
    module, variables, report = convert.import_tensors(family, arguments, tensors)
    outputs = Recorded(outputs)
    if (directory / "runs.json").exists():
        runs = json.loads((directory / "runs.json").read_text())["runs"]
        yield from diffusion_stages(module, variables, inputs, outputs)
        for run in runs:
            yield from replay(module, variables, run, inputs, outputs)
    else:
        yield from all_stages(module, variables, inputs, outputs)
    yield from round_trip(module, variables, report, tensors)
    yield from outputs.unread()


def all_stages(module: nn.Module, variables, inputs, outputs: Recorded) -> Iterator[Quantity]:
    """Every intermediate value of a reconstruction, at every recorded input size."""
    run = jax.jit(lambda raw: module.apply(variables, raw, method="stages"))
    for tag in sorted({name.split("/")[0] for name in inputs}):
        x = inputs[f"{tag}/x"]
        stages = run(x if module.signal.kind == "classes" else np.moveaxis(x, 1, -1))
        yield from compare_stages(module, variables, stages, outputs, f"{tag}/")


def compare_stages(
    module: nn.Module, variables, stages, outputs: Recorded, prefix: str = ""
) -> Iterator[Quantity]:
    """Recorded entries that have a stage of the same name.

    Where an id differs at a near tie, what follows is computed from the recorded id.
    """
    stages, gaps = dict(stages), None
    name = f"{prefix}tokens"
    if name in outputs:
        recorded = _ids_last(outputs[name], stages["tokens"].shape)
        latents = stages["quant_proj_out"]
        gaps = near_ties.gaps(module.quantizer, variables, latents, stages["tokens"], recorded)
        if near_ties.allowed(stages["tokens"], recorded, gaps):
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


def diffusion_stages(module, variables, inputs, outputs: Recorded) -> Iterator[Quantity]:
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
        ("noised", diffusion.add_noise(clean, noise, alpha)),
        ("velocity", diffusion.velocity(clean, noise, alpha)),
    ):
        yield Quantity(name, _channels_first(found), outputs[name])


def replay(module, variables, run: Mapping[str, Any], inputs, outputs) -> Iterator[Quantity]:
    """One sampling run, step by step, with the recorded noise."""
    tag, sampler = run["tag"], SAMPLERS[run["scheduler"]]
    options = run["kwargs"]
    clip = (-1.0, 1.0) if options.get("thresholding") or options.get("clip_sample") else None
    plan = diffusion_sampling.plan(
        sampler, module.alphas, run["steps"], spacing=run["mode"], compat="ml-4m"
    )
    yield Quantity(f"{tag}/timesteps", plan.timestep, outputs[f"{tag}/timesteps"])
    values = _channels_last(outputs["quant"])
    denoise = _denoiser(module, variables, values)
    mask = jnp.ones(values.shape[:3], bool)
    fresh = [_channels_last(x) for x in inputs.get(f"{tag}/variance_noise", [])]
    noise = _channels_last(inputs[f"{tag}/init_noise"])
    state = diffusion_sampling.start(sampler, noise)
    answers, samples = outputs[f"{tag}/model_outputs"], outputs[f"{tag}/prev_samples"]
    for i in range(len(plan.timestep)):
        row = jax.tree.map(lambda leaf, i=i: leaf[i], plan)
        answer = denoise(state.noised, jnp.full(len(noise), row.timestep), mask)
        state = diffusion_sampling.step(
            sampler, state, row, answer, lambda i=i: fresh[i] if i < len(fresh) else 0.0,
            prediction=module.prediction, clip=clip, compat="ml-4m",
        )  # fmt: skip
        if i < len(answers):
            yield Quantity(f"{tag}/model_outputs/{i}", _channels_first(answer), answers[i])
            yield Quantity(f"{tag}/prev_samples/{i}", _channels_first(state.noised), samples[i])
    yield Quantity(f"{tag}/image", _channels_first(state.noised), outputs[f"{tag}/image"])


def round_trip(module, variables, report, tensors) -> Iterator[Quantity]:
    """Out again with the published names, bit for bit."""
    exported = convert.export_tensors(module, variables)
    yield Quantity("export/names", sorted(exported), sorted(tensors))
    same = [n for n in report.used if np.array_equal(exported[n], tensors[n])]
    yield Quantity("export/bits", sorted(same), sorted(report.used))
    for name in report.derived:
        yield Quantity(f"export/{name}", exported[name], tensors[name], TABLES)


def _denoiser(module, variables, values):
    @jax.jit
    def denoise(noised, times, mask):
        return module.apply(variables, noised, times, values, mask, method="denoise")

    return denoise


def _channels_last(x: np.ndarray) -> jax.Array:
    return jnp.asarray(np.moveaxis(x, -3, -1))


def _channels_first(x: jax.Array) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, -3)
