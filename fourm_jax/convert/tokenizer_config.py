"""Constructor arguments of published tokenizers <-> arguments of our families.

Source: docs/published.md#checkpoints.
"""

import re
from collections.abc import Mapping
from typing import Any

from fourm_jax.convert import divae_config
from fourm_jax.tokenizers.signal import Signal
from fourm_jax.utils import imagenet, plain_data

# Width, depth and heads of the published ViT presets; `vit_{s,b,l}_{enc,dec}`.
VIT_SIZES = {"s": (512, 8, 8), "b": (768, 12, 12), "l": (1024, 24, 16)}
PRESETS: Mapping[str, Mapping[str, int]] = {
    f"vit_{size}_{side}": {"dim": dim, "depth": depth, "num_heads": heads}
    for size, (dim, depth, heads) in VIT_SIZES.items()
    for side in ("enc", "dec")
}
VIT_FIXED = {"mlp_ratio": 4, "qkv_bias": True}  # of every published preset
QUANTIZERS = {"lucid": "ema", "memcodes": "memcodes"}
MLP_NAME = re.compile(r"(BottleneckMLP|MLP)/B_(\d+)-Wi_(\d+)(?:-(\d+))?")
DEFAULTS = {
    "n_labels": None,
    "patch_proj": True,
    "post_mlp": False,
    "out_conv": False,
    "num_codebooks": 1,
    "norm_codes": True,
    "norm_latents": False,
    "ema_decay": 0.99,
    "commitment_weight": 1.0,
    "code_replacement_policy": "batch_random",
    "kmeans_init": False,
    "image_size": 224,
    "patch_size": 16,
    "quant_type": "lucid",
    "undo_std": False,
    "image_size_enc": None,
    "image_size_dec": None,
    "patch_size_dec": None,
}
REQUIRED = ("n_channels", "enc_type", "dec_type", "codebook_size", "latent_dim")
# What a config may say: the published models stay far below these sizes.
RULES: Mapping[str, plain_data.Rule] = {
    **dict.fromkeys(
        ("enc_type", "dec_type", "quant_type", "code_replacement_policy"),
        plain_data.optional(plain_data.TEXT),
    ),
    **dict.fromkeys(
        ("image_size", "image_size_enc", "image_size_dec", "patch_size", "patch_size_dec"),
        plain_data.optional(plain_data.integer(1, 2**13)),
    ),
    **dict.fromkeys(
        ("n_channels", "latent_dim", "num_codebooks"),
        plain_data.optional(plain_data.integer(1, 2**16)),
    ),
    "codebook_size": plain_data.optional(plain_data.integer(1, 2**24)),
    "n_labels": plain_data.optional(plain_data.integer(0, 2**20)),
    **dict.fromkeys(
        ("ema_decay", "commitment_weight"), plain_data.optional(plain_data.number(0, 1e6))
    ),
    **dict.fromkeys(
        (
            "patch_proj",
            "post_mlp",
            "out_conv",
            "norm_codes",
            "norm_latents",
            "kmeans_init",
            "undo_std",
        ),
        plain_data.optional(plain_data.FLAG),
    ),
}
_PICTURE: Mapping[str, Any] = {
    "dtype": "uint8",
    "low": 0.0,
    "high": 255.0,
    "mean": 127.5,
    "std": 127.5,
}
# Signals by modality and number of channels.
NATURAL: Mapping[str, Mapping[int, Signal]] = {
    "depth": {1: Signal(axes="hw", standardize=True)},
    "normal": {3: Signal(num_channels=3, low=-1.0, high=1.0, unit=True)},
    "edge": {1: Signal(axes="hw", **_PICTURE), 3: Signal(num_channels=3, **_PICTURE)},
    "rgb": {3: Signal(num_channels=3, **_PICTURE)},
}
CONTROLNET = ("sd_path", "image_size_sd", "pretrained_cn")  # arguments that only VQControlNet has


def arguments_of(
    config: Mapping[str, Any],
    *,
    presets: Mapping[str, Mapping[str, int]] | None = None,
    signal: Signal | None = None,
) -> tuple[str, dict[str, Any]]:
    """Return (family, arguments of its `build`) of a published tokenizer config.

    Args:
      config: constructor arguments, as in config.json or the safetensors header.
      presets: further `enc_type` / `dec_type` names -> dim, depth, num_heads.
      signal: raw signal; default: float arrays as the published model takes them, which is after
        the normalization of its data pipeline (class ids for semseg). With `undo_std` that is
        ImageNet's; then decoded images are in that space too (the published decoder leaves them in
        -1..1).

    Raises:
      ValueError: a required key is missing, a value is of another type or out of bounds, a
        backbone or quantizer is not known, a preset has a field that no published one has.
    """
    _check_keys(config)
    config = {**DEFAULTS, **{key: value for key, value in config.items() if value is not None}}
    encoder, decoder = config["enc_type"], config.get("dec_type", "")
    common = {
        "signal": signal or _published_signal(config),
        "num_codes": config["codebook_size"],
        "latent_dim": config["latent_dim"],
        **_quantizer_arguments(config),
    }
    loss = "cross_entropy" if config["n_labels"] else "mse"
    if MLP_NAME.fullmatch(encoder) and MLP_NAME.fullmatch(decoder):
        sides = {"encoder": _mlp_backbone(encoder), "decoder": _mlp_backbone(decoder)}
        return "mlp", {**common, "loss": loss, **sides}
    sizes = {**PRESETS, **(presets or {})}
    patch_size = config["patch_size"] if config["patch_proj"] else 1
    common |= {
        "image_size": config["image_size"] if patch_size > 1 else _grid_side(config),
        "patch_size": patch_size,
        "encoder": _vit_arguments(config, encoder, sizes)
        | _positions(config, config["image_size_enc"], config["patch_size"]),
    }
    if is_controlnet(config):
        del common["quantizer_type"]
        return "vqcontrolnet", common
    common["loss"] = loss
    if divae_config.is_diffusion(config):
        num_tokens = (config["image_size"] // config["patch_size"]) ** 2
        return "divae", common | divae_config.arguments_of(
            config, num_tokens=num_tokens, presets=presets
        )
    common["decoder"] = _vit_decoder(config, decoder, sizes, patch_size)
    return "vqvae", common | {"class_dim": config["n_channels"]}


def natural_signal(config: Mapping[str, Any], name: str) -> Signal | None:
    """Signal of a published tokenizer with the normalization of its data pipeline inside.

    Pictures of three channels are uint8; normals, also given as pictures, come back as unit
    vectors; depth of any scale is standardized per picture, as its ids know no scale.

    Args:
      config: as for `arguments_of`.
      name: of the checkpoint; that of a modality in it tells what one channel holds.

    Returns:
      None where config and name say no more than `arguments_of` does: features, labels, masks.

    Source: docs/published.md#modalities.
    """
    if config.get("n_labels") or config.get("patch_proj") is False:
        return None
    named = [modality for modality in NATURAL if modality in name.lower()]
    channels = config.get("n_channels")
    return NATURAL[named[0] if named else "rgb"].get(channels) if type(channels) is int else None


def _check_keys(config: Mapping[str, Any]) -> None:
    plain_data.check(config, RULES, "config")
    controlnet = is_controlnet(config)
    for key in REQUIRED:
        if config.get(key) is None and not (controlnet and key == "dec_type"):
            raise ValueError(f"tokenizer config without {key!r}; it needs {REQUIRED}")
    kind = config.get("quant_type") or DEFAULTS["quant_type"]
    if kind not in QUANTIZERS:
        raise ValueError(f"quant_type {kind!r}, allowed: {sorted(QUANTIZERS)}")
    if controlnet and kind != "lucid":
        raise ValueError(f"quant_type {kind!r} of a VQControlNet, allowed: 'lucid'")


def _vit_decoder(
    config: Mapping[str, Any], name: str, sizes: Mapping[str, Mapping[str, int]], patch_size: int
) -> dict[str, Any]:
    own_patch = config["patch_size_dec"] or config["patch_size"]
    arguments = _vit_arguments(config, name, sizes) | {"out_conv": config["out_conv"]}
    arguments |= _positions(config, config["image_size_dec"], own_patch)
    if config["patch_proj"] and own_patch != patch_size:
        arguments["patch_size"] = own_patch
    return arguments


def is_controlnet(config: Mapping[str, Any]) -> bool:
    """Whether a tokenizer config is that of a VQControlNet."""
    return not config.get("dec_type") and any(key in config for key in CONTROLNET)


def _positions(config: Mapping[str, Any], image_size: int | None, patch: int) -> dict[str, Any]:
    """Grid of one ViT's position table, where it is not that of the tokens (interpolated)."""
    side = (image_size or config["image_size"]) // patch
    tokens = config["image_size"] // config["patch_size"]
    return {} if side == tokens else {"grid": (side, side)}


def _vit_arguments(
    config: Mapping[str, Any], name: str, presets: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    if name not in presets:
        raise ValueError(f"tokenizer backbone {name!r}, known: {sorted(presets)}")
    preset = _preset(presets[name])
    sizes = {key: preset.pop(key) for key in ("dim", "depth", "num_heads")}
    preset.pop("dim_tokens", None)
    for key, value in preset.items():
        if VIT_FIXED.get(key) != value:
            raise ValueError(f"backbone {name!r}: {key} {value!r}, allowed: {VIT_FIXED}")
    return {**sizes, "post_mlp": config["post_mlp"]}


def _published_signal(config: Mapping[str, Any]) -> Signal:
    if config["n_labels"]:
        return Signal(axes="hw", dtype="int32", kind="classes", num_classes=config["n_labels"])
    if not config["undo_std"]:
        return Signal(axes="hwc", num_channels=config["n_channels"])
    if config["n_channels"] != len(imagenet.MEAN):
        raise ValueError(f"undo_std with n_channels {config['n_channels']}, allowed: 3")
    # raw (x - m) / s is wanted as 2 x - 1
    return Signal(
        axes="hwc",
        num_channels=3,
        mean=tuple(
            (0.5 - mean) / std for mean, std in zip(imagenet.MEAN, imagenet.STD, strict=True)
        ),
        std=tuple(0.5 / std for std in imagenet.STD),
    )


def _grid_side(config: Mapping[str, Any]) -> int:
    """Feature maps: the published `image_size` is that of the image behind the features."""
    return config["image_size"] // config["patch_size"]


def _preset(sizes: Mapping[str, Any]) -> dict[str, int]:
    """Accept our names and the published ones (`dim_tokens`)."""
    return {"dim": sizes["dim_tokens"], **sizes} if "dim_tokens" in sizes else dict(sizes)


def _ema_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "num_heads": config["num_codebooks"],
        "metric": "cosine" if config["norm_codes"] else "euclidean",
        "normalize_latents": config["norm_latents"],
        "decay": config["ema_decay"],
        "commitment_weight": config["commitment_weight"],
        "dead_code_policy": config["code_replacement_policy"],
        "kmeans_start": config["kmeans_init"],
        "as_published": True,
    }


def _quantizer_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    memcodes = config["quant_type"] == "memcodes"
    return {
        "quantizer_type": QUANTIZERS[config["quant_type"]],
        "quantizer": {"num_heads": config["num_codebooks"]} if memcodes else _ema_arguments(config),
    }


def _mlp_backbone(name: str) -> dict[str, Any]:
    found = MLP_NAME.fullmatch(name)
    assert found, name
    kind, depth, width, expansion = found.groups()
    if kind == "MLP":  # B_n counts its linear layers, the last one included
        return {"kind": "linear", "dim": int(width), "depth": int(depth) - 1}
    backbone = {"kind": "bottleneck", "dim": int(width), "depth": int(depth)}
    return {**backbone, "expansion": int(expansion)} if expansion else backbone
