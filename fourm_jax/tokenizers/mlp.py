"""MLP tokenizer for vectors (and, pointwise, feature maps): several parallel codes each."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from fourm_jax.models.backbones import mlp
from fourm_jax.tokenizers import arguments, autoencoder
from fourm_jax.tokenizers.signal import Signal

BACKBONES = {"bottleneck": mlp.BottleneckMLP, "linear": mlp.LinearStack}


def build(
    *,
    signal: Signal | Mapping[str, Any],
    num_codes: int,
    latent_dim: int,
    encoder: Mapping[str, Any],
    decoder: Mapping[str, Any],
    quantizer: Mapping[str, Any],
    quantizer_type: str = "memcodes",
    loss: str = "cosine",
    image_size: int | Sequence[int] = 1,
) -> autoencoder.Autoencoder:
    """Return the module; arguments are plain data, as configs and cards hold them.

    Args:
      signal: fields of `Signal`; vectors ("c"), or feature maps ("hwc") treated point by point.
      image_size, num_codes, latent_dim, quantizer, quantizer_type: see `arguments.shared_fields`;
        latent_dim is the width of all codebooks together.
      encoder, decoder: "kind" (key of `BACKBONES`, default "bottleneck") and fields of that module
        ("dim", "depth", ...).
      loss: name in `ops.reconstruction.LOSSES`.

    Raises:
      ValueError: unknown quantizer or backbone.
    """
    fields = arguments.shared_fields(
        signal=signal,
        image_size=image_size,
        num_codes=num_codes,
        latent_dim=latent_dim,
        quantizer=quantizer,
        quantizer_type=quantizer_type,
    )
    return autoencoder.Autoencoder(
        encoder=_backbone(output_dim=encoder["dim"], **encoder),
        decoder=_backbone(output_dim=fields["signal"].output_channels, **decoder),
        decoder_dim=decoder["dim"],
        loss=loss,
        **fields,
    )


def _backbone(*, kind: str = "bottleneck", **fields: Any) -> nn.Module:
    if kind not in BACKBONES:
        raise ValueError(f"MLP backbone {kind!r}, allowed: {sorted(BACKBONES)}")
    return BACKBONES[kind](**fields)


def tiny() -> dict[str, dict[str, Any]]:
    """Small arguments by case for the contract test."""
    sides = {"encoder": {"dim": 32, "depth": 1}, "decoder": {"dim": 32, "depth": 1}}
    return {
        "vector_memcodes": {
            **sides,
            "signal": {"axes": "c", "num_channels": 6},
            "loss": "mse",
            "num_codes": 16,
            "latent_dim": 16,
            "quantizer": {"num_heads": 4},
        },
        "vector_one_code": {
            **sides,
            "signal": {"axes": "c", "num_channels": 6},
            "loss": "smooth_l1",
            "num_codes": 16,
            "latent_dim": 8,
            "quantizer_type": "ema",
            "quantizer": {},
        },
        "feature_map": {
            **sides,
            "signal": {"num_channels": 6},
            "loss": "mse",
            "image_size": (3, 2),
            "num_codes": 16,
            "latent_dim": 16,
            "quantizer": {"num_heads": 2},
        },
    }
