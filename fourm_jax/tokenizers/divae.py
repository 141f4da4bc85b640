"""DiVAE: a ViT encoder and a codebook whose decoder draws the image by diffusion.

Source: docs/published.md#diffusion.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from fourm_jax.models.backbones import unet, uvit, vit
from fourm_jax.tokenizers import arguments
from fourm_jax.tokenizers.diffusion_autoencoder import DiffusionAutoencoder
from fourm_jax.tokenizers.signal import Signal

DECODERS: Mapping[str, type[nn.Module]] = {"unet": unet.UNet, "uvit": uvit.UViT}


def build(
    *,
    signal: Signal | Mapping[str, Any],
    image_size: int | Sequence[int],
    patch_size: int,
    num_codes: int,
    latent_dim: int,
    encoder: Mapping[str, Any],
    decoder: Mapping[str, Any],
    decoder_type: str = "uvit",
    quantizer: Mapping[str, Any] | None = None,
    quantizer_type: str = "ema",
    dtype: str = "float32",
    **diffusion: Any,
) -> DiffusionAutoencoder:
    """Return the module; arguments are plain data, as configs and cards hold them.

    Args:
      signal, image_size, patch_size, num_codes, latent_dim, quantizer, quantizer_type: see
        `arguments.shared_fields`; signals are continuous images.
      encoder: fields of `vit.Encoder` ("dim", "depth", "num_heads", ...).
      decoder: fields of the decoder's module.
      decoder_type: key of `DECODERS`.
      dtype: "float32" or "bfloat16", of the arithmetic of encoder and decoder; parameters, codes,
        norms and the decoder's answer are float32.
      diffusion: further fields of `DiffusionAutoencoder`: schedule, prediction, sampler, loss, ...

    Raises:
      ValueError: unknown decoder or dtype, sizes that do not divide, a signal that is not
        continuous.
    """
    if decoder_type not in DECODERS:
        raise ValueError(f"decoder_type {decoder_type!r}, allowed: {sorted(DECODERS)}")
    fields = arguments.shared_fields(
        signal=signal,
        image_size=image_size,
        patch_size=patch_size,
        num_codes=num_codes,
        latent_dim=latent_dim,
        quantizer=quantizer,
        quantizer_type=quantizer_type,
    )
    images: Signal = fields["signal"]
    if images.kind != "continuous" or not images.is_image:
        raise ValueError(f"DiVAE draws continuous images, got signal {images.describe()}")
    arithmetic = {"dtype": vit.compute_dtype(dtype)}
    make_decoder = DECODERS[decoder_type]
    drawing = make_decoder(
        num_channels=images.output_channels, **arithmetic | arguments.hashable(decoder)
    )
    size, unit = fields["image_size"], drawing.multiple
    if size[0] % unit or size[1] % unit:
        raise ValueError(f"image_size {size} is not divisible by the decoder's factor {unit}")
    sides: dict[str, Any] = {"patch_size": patch_size, "grid": arguments.grid(fields), **arithmetic}
    return DiffusionAutoencoder(
        encoder=vit.Encoder(**sides | arguments.hashable(encoder)),
        decoder=drawing,
        **fields,
        **arguments.hashable(diffusion),
    )


def tiny() -> dict[str, dict[str, Any]]:
    """Small arguments by case name, for tests: both decoders, one signal each."""
    shared = {
        "num_codes": 16,
        "latent_dim": 8,
        "encoder": {"dim": 16, "depth": 1, "num_heads": 2},
        "num_decode_steps": 3,
    }
    pixels = {"dtype": "uint8", "low": 0, "high": 255, "mean": 127.5, "std": 127.5}
    metres = {"axes": "hw", "low": 0.5, "high": 20.0, "log": True, "mean": 1.2, "std": 1.0}
    unet = {"dim": 16, "multipliers": (1,), "blocks_per_level": 1, "attention_at": (1,)}
    uvit = {"channels": (8,), "blocks_per_level": 1, "dim": 16, "depth": 1, "num_heads": 2}
    return {
        "rgb_unet": {
            **shared,
            "signal": {**pixels, "num_channels": 3},
            "image_size": 8,
            "patch_size": 4,
            "decoder_type": "unet",
            "decoder": {**unet, "patch_size": 2, "num_groups": 4},
            "schedule": "linear",
            "prediction": "sample",
        },
        "depth_uvit": {
            **shared,
            "signal": metres,
            "image_size": 8,
            "patch_size": 4,
            "decoder_type": "uvit",
            "decoder": {**uvit, "patch_size": 2, "num_groups": 4, "grid": 4, "dropout": 0.1},
            "condition_dropout": 0.1,
            "guidance": 1.5,
        },
    }
