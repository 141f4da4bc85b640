"""DiVAE: a ViT encoder and a codebook whose decoder draws the image by diffusion.

Source: docs/published.md#diffusion.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from fourm_jax.models import quantizers
from fourm_jax.models.backbones import unet, uvit, vit
from fourm_jax.tokenizers import autoencoder
from fourm_jax.tokenizers.diffusion_autoencoder import DiffusionAutoencoder
from fourm_jax.tokenizers.signal import Signal

DECODERS: Mapping[str, type[nn.Module]] = {"unet": unet.UNet, "uvit": uvit.UViT}


def build(
    *,
    signal: Signal | Mapping[str, Any],
    image_size: int | tuple[int, int],
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
      signal: fields of `Signal`; continuous images.
      image_size, patch_size: pixels; the grid is their quotient.
      num_codes, latent_dim: of the codebook.
      encoder: fields of `vit.Encoder` ("dim", "depth", "num_heads", ...).
      decoder: fields of the decoder's module.
      decoder_type: key of `DECODERS`.
      quantizer: further fields of the quantizer.
      quantizer_type: key of `quantizers.TYPES`.
      dtype: "float32" or "bfloat16", of the arithmetic of encoder and decoder; parameters, codes,
        norms and the decoder's answer are float32.
      diffusion: further fields of `DiffusionAutoencoder`: schedule, prediction, sampler, loss, ...

    Raises:
      ValueError: unknown decoder or dtype, sizes that do not divide, a signal that is not
        continuous.
    """
    signal = signal if isinstance(signal, Signal) else Signal(**signal)
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if decoder_type not in DECODERS:
        raise ValueError(f"decoder_type {decoder_type!r}, allowed: {sorted(DECODERS)}")
    if signal.kind != "continuous" or not signal.is_image:
        raise ValueError(f"DiVAE draws continuous images, got signal {signal.describe()}")
    arithmetic = {"dtype": vit.compute_dtype(dtype)}
    fields = arithmetic | autoencoder.hashable(decoder)
    decoder = DECODERS[decoder_type](num_channels=signal.output_channels, **fields)
    for unit, what in ((patch_size, "patch_size"), (decoder.multiple, "the decoder's factor")):
        if size[0] % unit or size[1] % unit:
            raise ValueError(f"image_size {size} is not divisible by {what} {unit}")
    grid = (size[0] // patch_size, size[1] // patch_size)
    return DiffusionAutoencoder(
        signal=signal,
        encoder=vit.Encoder(
            patch_size=patch_size, **{"grid": grid, **arithmetic, **autoencoder.hashable(encoder)}
        ),
        decoder=decoder,
        quantizer=quantizers.make(
            quantizer_type, num_codes=num_codes, latent_dim=latent_dim, **(quantizer or {})
        ),
        image_size=size,
        patch_size=patch_size,
        **autoencoder.hashable(diffusion),
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
            **shared, "signal": {**pixels, "num_channels": 3}, "image_size": 8, "patch_size": 4,
            "decoder_type": "unet", "decoder": {**unet, "patch_size": 2, "num_groups": 4},
            "schedule": "linear", "prediction": "sample",
        },
        "depth_uvit": {
            **shared, "signal": metres, "image_size": 8, "patch_size": 4, "decoder_type": "uvit",
            "decoder": {**uvit, "patch_size": 2, "num_groups": 4, "grid": 4, "dropout": 0.1},
            "condition_dropout": 0.1, "guidance": 1.5,
        },
    }  # fmt: skip
