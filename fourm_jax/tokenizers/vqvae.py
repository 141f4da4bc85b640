"""VQ-VAE for image-like signals: patch MLP or ViT on both sides of an EMA codebook."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from fourm_jax.models.backbones import mlp, vit
from fourm_jax.tokenizers import arguments, autoencoder
from fourm_jax.tokenizers.signal import Signal

BACKBONES: Mapping[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "patch_mlp": (mlp.PatchMLPEncoder, mlp.PatchMLPDecoder),
    "vit": (vit.Encoder, vit.Decoder),
}


def build(
    *,
    signal: Signal | Mapping[str, Any],
    image_size: int | Sequence[int],
    patch_size: int,
    num_codes: int,
    latent_dim: int,
    backbone: str = "vit",
    encoder: Mapping[str, Any],
    decoder: Mapping[str, Any],
    quantizer: Mapping[str, Any] | None = None,
    quantizer_type: str = "ema",
    loss: str = "mse",
    class_dim: int = 64,
    dtype: str = "float32",
) -> autoencoder.Autoencoder:
    """Return the module; arguments are plain data, as configs and cards hold them.

    Args:
      signal, image_size, patch_size, num_codes, latent_dim, quantizer, quantizer_type: see
        `arguments.shared_fields`.
      backbone: key of `BACKBONES`.
      encoder, decoder: fields of the backbone's modules ("dim", "depth", ...); of a ViT also
        "grid", (rows, columns) of its position table, where that is not the grid of the image. A
        decoder with a "patch_size" of its own draws at another resolution than it was given.
      loss: name in `ops.reconstruction.LOSSES`.
      class_dim: width of the class embedding of "classes" signals.
      dtype: "float32" or "bfloat16", of a ViT's arithmetic; parameters and codes are float32.

    Raises:
      ValueError: unknown backbone or dtype, sizes that do not divide.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone {backbone!r}, allowed: {sorted(BACKBONES)}")
    if backbone != "vit" and dtype != "float32":
        raise ValueError(f"dtype {dtype!r} with backbone {backbone!r}, allowed: 'float32'")
    fields = arguments.shared_fields(
        signal=signal,
        image_size=image_size,
        patch_size=patch_size,
        num_codes=num_codes,
        latent_dim=latent_dim,
        quantizer=quantizer,
        quantizer_type=quantizer_type,
    )
    sides: dict[str, Any] = {"patch_size": patch_size}
    if backbone == "vit":
        sides |= {"grid": arguments.grid(fields), "dtype": vit.compute_dtype(dtype)}
    make_encoder, make_decoder = BACKBONES[backbone]
    output = {"num_channels": fields["signal"].output_channels}
    return autoencoder.Autoencoder(
        encoder=make_encoder(**sides | arguments.hashable(encoder)),
        decoder=make_decoder(**output | sides | arguments.hashable(decoder)),
        decoder_dim=decoder["dim"],
        loss=loss,
        class_dim=class_dim,
        **fields,
    )


def tiny() -> dict[str, dict[str, Any]]:
    """Small arguments by case, one per kind of signal and backbone, for the contract test."""
    mlp_sides = {"encoder": {"dim": 32, "depth": 1}, "decoder": {"dim": 32, "depth": 1}}
    vit_side = {"dim": 32, "depth": 1, "num_heads": 2}
    sizes = {"image_size": (16, 8), "patch_size": 4, "num_codes": 16, "latent_dim": 8}
    patch_mlp = {**sizes, **mlp_sides, "backbone": "patch_mlp"}
    codebook = {"decay": 0.9, "normalize_latents": True, "kmeans_start": True}
    image = {"dtype": "uint8", "num_channels": 3, "low": 0.0, "high": 255.0, "mean": 127.5}
    return {
        "image": {**patch_mlp, "signal": {**image, "std": 64.0}, "quantizer": codebook},
        "depth": {
            **patch_mlp,
            "signal": {"axes": "hw", "low": 0.5, "high": 10.0, "log": True, "mean": 1.5},
            "loss": "l1",
        },
        "normals": {
            **patch_mlp,
            "signal": {"num_channels": 3, "low": -1.0, "high": 1.0, "unit": True},
            "quantizer": {"metric": "euclidean", "dead_code_policy": "linde_buzo_gray"},
        },
        "edges": {
            **patch_mlp,
            "signal": {"axes": "hw", "dtype": "uint8", "kind": "binary", "low": 0.0, "high": 255.0},
            "loss": "binary_cross_entropy",
        },
        "classes_vit": {
            **sizes,
            "signal": {"axes": "hw", "dtype": "uint8", "kind": "classes", "num_classes": 5},
            "encoder": vit_side,
            "decoder": {**vit_side, "out_conv": True},
            "loss": "cross_entropy",
            "class_dim": 8,
        },
        "features_two_heads": {
            **patch_mlp,
            "signal": {"num_channels": 6},
            "image_size": 3,
            "patch_size": 1,
            "quantizer": {**codebook, "num_heads": 2},
        },
    }
