"""divae/: core cases of the DiVAE whose weights are drawn by name, since published ones are large.

`<case>.json` holds a published config and its presets, `<case>.safetensors` ids, decoder answers
and a sampled image. Those were computed by this package at a state whose answers to recorded cases
of the published implementation (tokenizers/divae_*) agreed to 1e-5.
"""

import json
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.parity import quantity as quantities
from experiments.parity.quantity import Quantity, Recorded
from fourm_jax.convert import tokenizer_config, tokenizers
from fourm_jax.tokenizers import base

TIME, NUM_STEPS = 300, 3
IMAGES = ("decoder_forward", "decoder_forward_cond_mask", "ddpm_image")


def cases(folder: pathlib.Path) -> Iterator[tuple[str, Iterator[Quantity]]]:
    """One case per .safetensors file, described by the .json file beside it."""
    return quantities.described_cases(folder, check)


def check(path: pathlib.Path) -> Iterator[Quantity]:
    """Ids, decoder answers with and without dropped codes, and a sampled image, thinned out."""
    expected = Recorded(quantities.load(path))
    described = json.loads(path.with_suffix(".json").read_text())
    for name, found in answers(described["config"], described["presets"]).items():
        yield Quantity(name, found, expected[name])
    yield from expected.unread()


def answers(config: Mapping[str, Any], presets: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Everything that is recorded, computed anew."""
    _, arguments = tokenizer_config.arguments_of(config, presets=presets)
    module, variables, _ = tokenizers.import_tensors("divae", arguments, published(arguments))
    size, (rows, columns) = config["image_size"], module.grid
    image, noised = (
        jnp.asarray(draw(name, (1, size, size, config["n_channels"])))
        for name in ("image", "noised")
    )
    mask = jnp.asarray(draw("mask", (1, rows, columns)) > 0)

    @jax.jit
    def run(variables):
        stages: Any = module.apply(variables, image, method="stages")
        forward: list[Any] = [
            module.apply(variables, noised, jnp.array([TIME]), stages["quant"], m, method="denoise")
            for m in (None, mask)
        ]
        sampled: Any = module.apply(
            variables,
            stages["quant"],
            noised,
            module.sampling_plan(NUM_STEPS),
            lambda i: jnp.roll(noised, i + 1, axis=1),
            method="sample",
        )
        return stages["tokens"], [x[:, ::2, ::2] for x in (*forward, sampled)]

    tokens, images = jax.device_get(run(variables))
    return {"tokens": tokens, **dict(zip(IMAGES, images, strict=True))}


def published(arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """State dict with the published names: drawn weights, computed tables."""
    module = base.build("divae", arguments)
    shapes = base.abstract_variables(module)
    template = tokenizers.export_tensors(
        module, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    )
    derived = tokenizers.derived_tensors(module)
    aliases = {
        a: link.names[i] for link in tokenizers.links(module) for i, a in enumerate(link.aliases)
    }
    tensors = {}
    for name, tensor in template.items():
        tensors[name] = derived.get(name, draw(aliases.get(name, name), tensor.shape))
    return tensors | {"quantize._codebook.initted": np.ones(1, np.float32)}


def draw(name: str, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """Numbers that depend on the name only (RandomState never changes its stream)."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1 and name.endswith("weight"):
        values /= np.sqrt(np.prod(shape[1:]))
    elif name.endswith("weight"):
        values = 1 + 0.1 * values
    elif name.endswith("bias"):
        values *= 0.1
    return values.astype(np.float32)
