"""Our tokenizers -> published constructor arguments; what those cannot say is an error.

Published constructors ignore arguments that they do not know, so config.json also carries ours
under `OWN`: the raw signal with its normalization (which upstream belongs to the data pipeline),
the loss, the corrected behaviour. Reading it back gives the very same tokenizer.
"""

import json
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from fourm_jax.convert import divae_config, tokenizer_config
from fourm_jax.models import quantizers
from fourm_jax.models.backbones import mlp, vit
from fourm_jax.tokenizers import autoencoder, base, card, diffusion_autoencoder
from fourm_jax.tokenizers.divae import DECODERS
from fourm_jax.utils import io, upgrades

OWN = "fourm_jax"
FEATURE_PATCH = 16  # any will do: feature maps have one position per `image_size // patch_size`


def published_config(family: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the published constructor arguments of a tokenizer of ours, and ours under `OWN`.

    Args:
      family, arguments: as on a tokenizer's card.

    Raises:
      ValueError: names what the published format does not have: a family, a backbone, a size, an
        image that is not square.
    """
    module = base.build(family, arguments)
    if isinstance(module, diffusion_autoencoder.DiffusionAutoencoder):
        config = _image_sizes(module) | _backbone(module.encoder, "enc") | _diffusion(module)
    elif isinstance(module, autoencoder.Autoencoder):
        config = _backbone(module.encoder, "enc") | _backbone(module.decoder, "dec")
        if isinstance(module.encoder, vit.Encoder):
            config |= _image_sizes(module)
            _same("post_mlp", module.encoder.post_mlp, module.decoder.post_mlp)
    else:
        raise ValueError(f"the published format has no tokenizer family {family!r}")
    if module.signal.kind == "classes":
        config |= {"n_labels": module.signal.num_classes, "n_channels": module.class_dim}
    else:
        config |= {"n_labels": None, "n_channels": module.signal.output_channels}
    config |= _quantizer(module.quantizer)
    own = {"family": family, "arguments": json.loads(json.dumps(card.plain_arguments(arguments)))}
    return {**config, OWN: own}


def own_arguments(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return (family, arguments) that `published_config` wrote into a config; None without them.

    Raises:
      ValueError: they do not describe a tokenizer, or not that of the rest of the config.
    """
    own = config.get(OWN)
    if own is None:
        return None
    try:
        own = io.parse_json(own, "it") if isinstance(own, str) else own
        card.check_arguments(own["arguments"], "it")
        family, arguments = own["family"], upgrades.upgrade_arguments(own["arguments"])
        expected = published_config(family, arguments)
    except Exception as error:  # plain data of a stranger break builders in every way there is
        raise ValueError(f"config: {OWN!r} describes no tokenizer of this version: {error}") from (
            error
        )
    for name, value in expected.items():
        if name != OWN and config.get(name) != value:
            raise ValueError(
                f"config: {name} is {config.get(name)!r}, {OWN!r} says {value!r}; one was edited"
            )
    return family, arguments


def header(config: Mapping[str, Any]) -> dict[str, str]:
    """A config as strings for the safetensors header, such that YAML reads the same values."""
    return {name: _yaml(value) for name, value in config.items()}


def _yaml(value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(json.dumps(value))
    text = repr(value) if not isinstance(value, str) else value
    # YAML takes 1e-05 for a word, 1.0e-05 for a number
    if isinstance(value, float) and "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return text


def _backbone(module: nn.Module, side: str) -> dict[str, Any]:
    """Name of a backbone, and what else the published constructor wants to know about it."""
    if isinstance(module, mlp.BottleneckMLP | mlp.LinearStack):
        linear = isinstance(module, mlp.LinearStack)
        kind, depth = ("MLP", module.depth + 1) if linear else ("BottleneckMLP", module.depth)
        name = f"{kind}/B_{depth}-Wi_{module.dim}"
        expansion = 4 if linear else module.expansion
        return {f"{side}_type": name if expansion == 4 else f"{name}-{expansion}"}
    if not isinstance(module, vit.Encoder | vit.Decoder):
        raise ValueError(
            f"the published format has no {type(module).__name__} as a backbone; it has ViTs and "
            "bottleneck MLPs"
        )
    sizes = {"dim": module.dim, "depth": module.depth, "num_heads": module.num_heads}
    for name, preset in tokenizer_config.PRESETS.items():
        if name.endswith(f"_{side}") and preset == sizes:
            config = {f"{side}_type": name, "post_mlp": module.post_mlp}
            return config | ({"out_conv": module.out_conv} if side == "dec" else {})
    known = {n: p for n, p in tokenizer_config.PRESETS.items() if n.endswith(f"_{side}")}
    raise ValueError(f"the published format has no ViT with {sizes}; it has {known}")


def _image_sizes(module: nn.Module) -> dict[str, Any]:
    """Sizes of image and patches, and of position tables where those are of another size."""
    patched = module.patch_size > 1
    patch = module.patch_size if patched else FEATURE_PATCH
    rows = _square("image_size", module.image_size)
    config = {
        "image_size": rows if patched else rows * FEATURE_PATCH,
        "patch_size": patch,
        "patch_proj": patched,
    }
    for side in ("enc", "dec"):
        part = module.encoder if side == "enc" else module.decoder
        if not isinstance(part, vit.Encoder | vit.Decoder):
            continue
        own_patch = part.patch_size if patched else patch
        config |= {f"patch_size_{side}": own_patch} if own_patch != patch else {}
        size = _square(f"position table of the {side}oder", part.grid) * own_patch
        config |= {f"image_size_{side}": size} if size != config["image_size"] else {}
    return config


def _quantizer(module: nn.Module) -> dict[str, Any]:
    common = {
        "codebook_size": module.num_codes,
        "latent_dim": module.latent_dim,
        "num_codebooks": module.num_heads,
    }
    if isinstance(module, quantizers.Memcodes):
        if module.temperature != 1:
            raise ValueError(
                f"the published format has Memcodes with temperature 1, not {module.temperature}"
            )
        return common | {"quant_type": "memcodes"}
    return common | {
        "quant_type": "lucid",
        "norm_codes": module.metric == "cosine",
        "norm_latents": module.normalize_latents,
        "ema_decay": module.decay,
        "commitment_weight": module.commitment_weight,
        "code_replacement_policy": module.dead_code_policy,
        "kmeans_init": module.kmeans_start,
    }


def _diffusion(module: diffusion_autoencoder.DiffusionAutoencoder) -> dict[str, Any]:
    names = {ours: theirs for theirs, ours in divae_config.PREDICTIONS.items()}
    lost = module.condition_dropout_tokens
    tokens = module.grid[0] * module.grid[1]
    if module.sampler == "dpm":
        raise ValueError("the published format has the samplers ddim, ddpm and pndm, not 'dpm'")
    config = {
        **_diffusion_decoder(module.decoder),
        "scheduler": module.sampler,
        "beta_schedule": module.schedule,
        "prediction_type": names[module.prediction],
        "num_train_timesteps": module.num_times,
        "zero_terminal_snr": module.zero_terminal_snr,
        "thresholding": module.clip == (-1.0, 1.0),
        "clip_sample": False,
        "cls_free_guidance_dropout": module.condition_dropout,
        "masked_cfg": lost is not None,
        "freeze_enc": module.freeze_encoder,
    }
    if lost is not None:  # published bounds are on what is kept
        config |= {"masked_cfg_low": tokens - lost[1], "masked_cfg_high": tokens - lost[0]}
    return config


def _diffusion_decoder(decoder: nn.Module) -> dict[str, Any]:
    extra = {}
    if hasattr(decoder, "conditioning"):
        extra = {"conditioning": decoder.conditioning, "dropout": decoder.dropout}
    for name, (kind, fields) in divae_config.decoders().items():
        made = DECODERS[kind](
            num_channels=decoder.num_channels,
            dtype=decoder.dtype,
            **(fields | extra) if kind == "uvit" else fields,
        )
        if made == decoder:
            config = {"dec_type": name}
            if extra:
                config |= {
                    "conditioning": decoder.conditioning,
                    "dec_transformer_dropout": decoder.dropout,
                }
            return config
    raise ValueError(
        f"the published format has no {type(decoder).__name__} of these sizes as a diffusion "
        f"decoder; it has {sorted(divae_config.decoders())}"
    )


def _square(what: str, size: tuple[int, int]) -> int:
    if size[0] != size[1]:
        raise ValueError(f"the published format has square images only, {what} is {size}")
    return size[0]


def _same(what: str, first: Any, second: Any) -> None:
    if first != second:
        raise ValueError(
            f"the published format has one {what} for both sides, here it is {first} and {second}"
        )
