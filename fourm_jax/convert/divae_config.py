"""Published constructor arguments of diffusion decoders -> those of our DiVAE.

Source: docs/published.md#checkpoints.
"""

from collections.abc import Mapping
from typing import Any

from fourm_jax.ops.diffusion import process
from fourm_jax.utils import plain_data

PREDICTIONS: Mapping[str, process.Prediction] = {
    "sample": "sample",
    "epsilon": "epsilon",
    "v_prediction": "v",
}
UNET_FIELDS = {
    "patch_size": "patch_size",
    "model_channels": "dim",
    "channel_mult": "multipliers",
    "num_res_blocks": "blocks_per_level",
    "attention_resolutions": "attention_at",
}
UVIT_FIELDS = {
    "patch_size": "patch_size",
    "block_out_channels": "channels",
    "layers_per_block": "blocks_per_level",
    "downsample_before_mid": "downsample_bottleneck",
    "mid_layers": "depth",
    "mid_num_heads": "num_heads",
    "mid_dim": "dim",
    "mid_use_long_skip": "long_skip",
}
FIXED = {"mid_mlp_ratio": 4, "mid_qkv_bias": True}
SIZES = {
    "b": {"dim": 768, "depth": 12, "num_heads": 12},
    "l": {"dim": 1024, "depth": 24, "num_heads": 16},
    "h": {"dim": 1280, "depth": 32, "num_heads": 16},
}
RULES: Mapping[str, plain_data.Rule] = {
    **dict.fromkeys(
        ("scheduler", "beta_schedule", "prediction_type", "conditioning"), plain_data.TEXT
    ),
    "num_train_timesteps": plain_data.integer(1, 10**5),
    **dict.fromkeys(
        ("cls_free_guidance_dropout", "dec_transformer_dropout"), plain_data.number(0, 1)
    ),
    "masked_cfg_low": plain_data.integer(0, 2**20),
    "masked_cfg_high": plain_data.optional(plain_data.integer(0, 2**20)),
    **dict.fromkeys(
        ("zero_terminal_snr", "thresholding", "clip_sample", "masked_cfg", "freeze_enc"),
        plain_data.FLAG,
    ),
}
DEFAULTS = {
    "scheduler": "ddpm",
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "num_train_timesteps": 1000,
    "zero_terminal_snr": True,
    "thresholding": True,
    "clip_sample": False,
    "cls_free_guidance_dropout": 0.0,
    "masked_cfg": False,
    "masked_cfg_low": 0,
    "masked_cfg_high": None,
    "conditioning": "concat",
    "dec_transformer_dropout": 0.2,
    "freeze_enc": False,
}


def is_diffusion(config: Mapping[str, Any]) -> bool:
    """Whether a tokenizer config is that of a DiVAE."""
    return str(config.get("dec_type")).startswith(("unet", "uvit"))


def decoders() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return published `dec_type` -> (our decoder type, fields)."""
    known: dict[str, tuple[str, dict[str, Any]]] = {"unet_patched": ("unet", {})}
    for size, fields in SIZES.items():
        known[f"uvit_{size}_p4_f16"] = ("uvit", fields)
    for size in ("b", "l"):
        fields = SIZES[size]
        skips = {"depth": fields["depth"] + 1, "long_skip": True}
        flat = {"downsample_bottleneck": False}
        known[f"uvit_{size}_p4_f16_longskip"] = ("uvit", {**fields, **skips})
        known[f"uvit_{size}_p4_f8"] = ("uvit", {**fields, **flat})
        known[f"uvit_{size}_p4_f16_extraconv"] = (
            "uvit",
            {**fields, **flat, "channels": (128, 256, 512)},
        )
    return known


def arguments_of(
    config: Mapping[str, Any],
    *,
    num_tokens: int,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the arguments of `tokenizers.divae.build` that concern the decoder.

    It samples as the published pipeline does: with its scheduler, clipping to -1..1.

    Args:
      config: constructor arguments, as in config.json or the safetensors header.
      num_tokens: positions of the grid.
      presets: further `dec_type` names -> published fields of the decoder's constructor.

    Raises:
      ValueError: a value of another type or out of bounds; a decoder, prediction or preset field is
        not known; a UNet that attends to its condition, which it can only concatenate.
    """
    config = {**DEFAULTS, **{key: value for key, value in config.items() if value is not None}}
    plain_data.check(config, RULES, "config")
    kind, decoder = _decoder(config["dec_type"], presets or {})
    if kind == "uvit":
        decoder["conditioning"] = config["conditioning"]
        decoder["dropout"] = config["dec_transformer_dropout"]
    elif config["conditioning"] != "concat":
        raise ValueError(
            f"conditioning {config['conditioning']!r} of decoder {config['dec_type']!r}, allowed: "
            "'concat'"
        )
    if config["prediction_type"] not in PREDICTIONS:
        raise ValueError(
            f"prediction_type {config['prediction_type']!r}, allowed: {sorted(PREDICTIONS)}"
        )
    sampling: dict[str, Any] = {"sampler": config["scheduler"], "as_published": True}
    if config["thresholding"] or config["clip_sample"]:
        sampling["clip"] = (-1.0, 1.0)
    dropped = None
    if config["masked_cfg"]:
        most_kept = num_tokens if config["masked_cfg_high"] is None else config["masked_cfg_high"]
        dropped = (num_tokens - most_kept, num_tokens - config["masked_cfg_low"])
    return {
        "decoder_type": kind,
        "decoder": decoder,
        "schedule": config["beta_schedule"],
        "num_times": config["num_train_timesteps"],
        "zero_terminal_snr": config["zero_terminal_snr"],
        "prediction": PREDICTIONS[config["prediction_type"]],
        "condition_dropout": config["cls_free_guidance_dropout"],
        "condition_dropout_tokens": dropped,
        "freeze_encoder": bool(config["freeze_enc"]),
        **sampling,
    }


def _decoder(name: str, presets: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    known = decoders()
    if name in known:
        kind, fields = known[name]
        return kind, dict(fields)
    if name not in presets:
        raise ValueError(f"diffusion decoder {name!r}, known: {sorted({*known, *presets})}")
    kind, names = ("unet", UNET_FIELDS) if name.startswith("unet") else ("uvit", UVIT_FIELDS)
    fields = {}
    for key, value in presets[name].items():
        if key in FIXED:
            if value != FIXED[key]:
                raise ValueError(f"decoder {name!r}: {key} {value!r}, allowed: {FIXED[key]!r}")
        elif key not in names:
            raise ValueError(f"decoder {name!r}: unknown field {key!r}, known: {sorted(names)}")
        else:
            fields[names[key]] = tuple(value) if isinstance(value, list) else value
    return kind, fields
