"""Core cases of the DiVAE for a fresh clone: drawn weights in the published format, our answers.

The published weights are too large to ship. These numbers were computed by this package at a state
whose answers to the full golden set agreed with the published implementation to 1e-5;
`python -m tests.convert.divae_cases` computes them again (after a wanted change only).
"""

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from fourm_jax.convert import tokenizer_config, tokenizers
from fourm_jax.tokenizers import base
from tests import drawn, golden_cases

SHARED = {
    "enc_type": "vit_micro_enc", "n_channels": 3, "codebook_size": 32, "latent_dim": 16,
    "post_mlp": True, "thresholding": True,
}  # fmt: skip
CONFIGS = {
    "unet": {
        **SHARED, "dec_type": "unet_patched_tiny", "image_size": 32, "patch_size": 8,
        "beta_schedule": "linear", "prediction_type": "sample",
    },
    "uvit": {
        **SHARED, "dec_type": "uvit_tiny_p4_f16", "image_size": 64, "patch_size": 16,
        "beta_schedule": "shifted_cosine:0.5", "prediction_type": "v_prediction",
    },
}  # fmt: skip
PRESETS = {
    "vit_micro_enc": {"dim_tokens": 32, "depth": 1, "num_heads": 2},
    "unet_patched_tiny": {
        "patch_size": 4, "model_channels": 32, "num_res_blocks": 1, "attention_resolutions": [2],
        "channel_mult": [1, 1],
    },
    "uvit_tiny_p4_f16": {
        "patch_size": 4, "block_out_channels": [32, 32], "layers_per_block": 1,
        "downsample_before_mid": True, "mid_layers": 2, "mid_num_heads": 4, "mid_dim": 48,
        "mid_mlp_ratio": 4, "mid_qkv_bias": True,
    },
}  # fmt: skip


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers that depend on the name only (RandomState never changes its stream)."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1 and name.endswith("weight"):
        values /= np.sqrt(np.prod(shape[1:]))
    elif name.endswith("weight"):
        values = 1 + 0.1 * values
    elif name.endswith("bias"):
        values *= 0.1
    return values.astype(np.float32)


def published(arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """State dict with the published names: drawn weights, computed tables."""
    module = base.build("divae", arguments)
    template = tokenizers.export_tensors(module, drawn.variables(base.abstract_variables(module)))
    derived = tokenizers.derived_tensors(module)
    aliases = {
        a: link.names[i] for link in tokenizers.links(module) for i, a in enumerate(link.aliases)
    }
    tensors = {}
    for name, tensor in template.items():
        tensors[name] = derived.get(name, draw(aliases.get(name, name), tensor.shape))
    return tensors | {"quantize._codebook.initted": np.ones(1, np.float32)}


def answers(case: str) -> dict[str, np.ndarray]:
    """Ids, decoder answers with and without dropped codes, and a sampled image, thinned out."""
    _, arguments = tokenizer_config.arguments_of(CONFIGS[case], presets=PRESETS, compat="ml-4m")
    module, variables, _ = tokenizers.import_tensors("divae", arguments, published(arguments))
    size, (rows, columns) = CONFIGS[case]["image_size"], module.grid
    image, noised = (jnp.asarray(draw(name, (1, size, size, 3))) for name in ("image", "noised"))
    mask = jnp.asarray(draw("mask", (1, rows, columns)) > 0)

    @jax.jit
    def run(variables):
        stages = module.apply(variables, image, method="stages")
        forward = [
            module.apply(variables, noised, jnp.array([300]), stages["quant"], m, method="denoise")
            for m in (None, mask)
        ]
        sampled = module.apply(
            variables, stages["quant"], noised, module.sampling_plan(3),
            lambda i: jnp.roll(noised, i + 1, axis=1), method="sample",
        )  # fmt: skip
        return stages["tokens"], [x[:, ::2, ::2] for x in (*forward, sampled)]

    tokens, images = jax.device_get(run(variables))
    names = ("decoder_forward", "decoder_forward_cond_mask", "ddpm_image")
    return {"tokens": tokens, **dict(zip(names, images, strict=True))}


if __name__ == "__main__":
    for name in CONFIGS:
        contiguous = {k: np.ascontiguousarray(v) for k, v in answers(name).items()}
        save_file(contiguous, golden_cases.shipped("divae") / f"{name}.safetensors")
