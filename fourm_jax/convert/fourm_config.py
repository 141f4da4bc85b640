"""The published trunk config (config.json or safetensors header) and our FourM, both ways."""

import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from fourm_jax.convert import safetensors_io
from fourm_jax.modalities import registry
from fourm_jax.models import layers
from fourm_jax.models.fourm import FourM
from fourm_jax.utils import errors, io, plain_data

WEIGHTS = "model.safetensors"  # of a published folder
PARTS = "model" + safetensors_io.INDEX  # in its place, where the weights are in several files
BIASES: Mapping[str, str] = {f"{part}_bias": part for part in layers.BIASED}
# Published activation -> MLP kind without and with a gate.
ACTIVATIONS: Mapping[str, tuple[layers.MlpKind, layers.MlpKind]] = {
    "GELU": ("gelu", "geglu"),
    "SiLU": ("silu", "swiglu"),
    "ReLU": ("relu", "reglu"),
}
REQUIRED = ("domains_in", "domains_out", "dim", "encoder_depth", "decoder_depth", "num_heads")
# Published constructor arguments with the defaults that apply where a config does not name them.
DEFAULTS: Mapping[str, Any] = {
    "mlp_ratio": 4.0,
    "gated_mlp": False,
    "act_layer": "GELU",
    "qk_norm": False,
    "share_modality_embeddings": True,
    "decoder_sep_mask": True,
    "decoder_causal_mask": False,
    "num_register_tokens": 0,
    "image_size": 224,
    **dict.fromkeys(BIASES, True),
}
# What a config may say: the published models stay far below these sizes.
NAMES = plain_data.list_of(plain_data.TEXT, 1000)
RULES: Mapping[str, plain_data.Rule] = {
    "domains_in": NAMES,
    "domains_out": NAMES,
    "dim": plain_data.integer(1, 2**16),
    "encoder_depth": plain_data.integer(1, 512),
    "decoder_depth": plain_data.integer(1, 512),
    "num_heads": plain_data.integer(1, 2**12),
    "mlp_ratio": plain_data.number(0, 64),
    "act_layer": plain_data.TEXT,
    "num_register_tokens": plain_data.integer(0, 2**12),
    "image_size": plain_data.integer(1, 2**13),
    **dict.fromkeys(
        (
            "gated_mlp",
            "qk_norm",
            "share_modality_embeddings",
            "decoder_sep_mask",
            "decoder_causal_mask",
            *BIASES,
        ),
        plain_data.FLAG,
    ),
}
# Fields of modality specs that replace those of the registry.
OVERRIDES = plain_data.dict_of(
    plain_data.dict_of(
        plain_data.any_of(
            plain_data.scalar(2**20), plain_data.list_of(plain_data.scalar(2**12), 1000)
        )
    )
)
# Fields of the published modality table that have another name in `ModalitySpec`.
FIELD_NAMES = {"orig_emb_dim": "embedding_dim", "max_length": "max_positions"}
GLOBAL_PATCH = 56  # pixels behind one code of a "global" modality, in the published table
# Arguments that do not change what trained weights compute. All published modalities bring a
# patch size of their own.
IGNORED = (
    "patch_size",
    "drop_path_rate_encoder",
    "drop_path_rate_decoder",
    "shared_drop_path",
    "use_act_checkpoint",
)


def read(path: str | os.PathLike) -> tuple[dict[str, Any], pathlib.Path]:
    """Return (config, weights file) of a folder or of a .safetensors file.

    A folder holds config.json and model.safetensors, or the parts of it and their index, which then
    is the weights file; a file carries the config in its header or
    has a config.json beside it, whose values may be strings, too, as in a header.

    Raises:
      FileNotFoundError: no weights there.
      ValueError: no config, or one that is no JSON object.
    """
    path = pathlib.Path(path)
    weights = path / WEIGHTS if path.is_dir() else path
    if path.is_dir() and not weights.exists() and (path / PARTS).exists():
        weights = path / PARTS
    if not weights.is_file():
        raise FileNotFoundError(f"no safetensors weights at {weights}")
    beside = weights.with_name("config.json")
    metadata = safetensors_io.open_weights(weights).metadata
    if {"dim", "codebook_size"} & set(metadata) and not (path.is_dir() and beside.is_file()):
        return safetensors_io.parse_metadata(metadata, weights), weights
    if not beside.is_file():
        raise ValueError(f"{weights}: no config in the header and no {beside} beside it")
    config = io.read_json(beside)
    if not isinstance(config, dict):
        raise ValueError(f"{beside}: expected a JSON object, got {type(config).__name__}")
    if config and all(isinstance(value, str) for value in config.values()):
        return safetensors_io.parse_metadata(config, beside), weights
    return config, weights


def to_model(
    config: Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | None = None,
    tie_heads: bool = False,
) -> FourM:
    """Build the FourM of a published config.

    Args:
      config: constructor arguments of the published model.
      overrides: fields of modality specs that differ from the registry, e.g. vocabulary sizes.
      tie_heads: whether heads and decoder token tables are one.

    Raises:
      ValueError: a missing or unknown argument, one of another type or out of bounds, an unknown
        modality or activation, an image size that the codes of "global" modalities do not divide.
    """
    known = (*REQUIRED, *DEFAULTS, *IGNORED)
    for key in config:
        if key not in known:
            raise ValueError(errors.unknown_value("argument in the config", key, known))
    missing = [key for key in REQUIRED if key not in config]
    if missing:
        raise ValueError(f"config lacks {missing}: is it that of a 4M trunk?")
    plain_data.check(config, RULES, "config")
    plain_data.check({"overrides": overrides or {}}, {"overrides": OVERRIDES}, "config")
    full = {**DEFAULTS, **config}
    if full["act_layer"] not in ACTIVATIONS:
        raise ValueError(errors.unknown_value("act_layer", full["act_layer"], ACTIVATIONS))
    mlp = ACTIVATIONS[full["act_layer"]][bool(full["gated_mlp"])]
    biased = tuple(part for key, part in BIASES.items() if full[key])
    inputs, outputs = tuple(full["domains_in"]), tuple(full["domains_out"])
    names = tuple(dict.fromkeys((*inputs, *outputs)))
    sizes = _sizes_of_globals(names, full["image_size"])
    for name, fields in dict(overrides or {}).items():
        sizes[name] = {**sizes.get(name, {}), **fields}
    return FourM(
        modalities=registry.resolve("fourm", names, sizes),
        inputs=inputs,
        outputs=outputs,
        dim=full["dim"],
        encoder_depth=full["encoder_depth"],
        decoder_depth=full["decoder_depth"],
        num_heads=full["num_heads"],
        mlp=mlp,
        mlp_dim=layers.hidden_dim(full["dim"], mlp, full["mlp_ratio"]),
        use_bias=biased if 0 < len(biased) < len(BIASES) else bool(biased),
        qk_norm=bool(full["qk_norm"]),
        num_registers=full["num_register_tokens"],
        tie_heads=tie_heads,
        share_modality_embeddings=bool(full["share_modality_embeddings"]),
        separate_targets=bool(full["decoder_sep_mask"]),
        causal_targets=bool(full["decoder_causal_mask"]),
        as_published=True,
    )


def spec_overrides(overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Field names of the published modality table to those of `ModalitySpec`.

    >>> spec_overrides({"tok_rgb@224": {"vocab_size": 64}, "caption": {"max_length": 32}})
    {'tok_rgb@224': {'vocab_size': 64}, 'caption': {'max_positions': 32}}
    """
    return {
        name: {FIELD_NAMES.get(field, field): value for field, value in fields.items()}
        for name, fields in overrides.items()
    }


def _sizes_of_globals(names: tuple[str, ...], image_size: int) -> dict[str, dict[str, int]]:
    """Codes of "global" modalities: the only ones whose size follows from the model's config."""
    sizes = {}
    for spec in registry.FOURM if image_size != DEFAULTS["image_size"] else ():
        if spec.kind == "global" and spec.name in names:
            if image_size % GLOBAL_PATCH:
                raise ValueError(
                    f"image_size {image_size} with modality {spec.name!r}, allowed: multiples of "
                    f"{GLOBAL_PATCH}"
                )
            sizes[spec.name] = {"max_tokens": (image_size // GLOBAL_PATCH) ** 2}
            sizes[spec.name]["max_positions"] = sizes[spec.name]["max_tokens"]
    return sizes


def _image_size(model: FourM) -> int:
    """Image size of a config that gives the "global" modalities of this model their codes."""
    for spec in model.modalities:
        side = math.isqrt(spec.max_tokens)
        if spec.kind == "global" and side**2 == spec.max_tokens:
            return side * GLOBAL_PATCH
    return DEFAULTS["image_size"]


def _mlp_ratio(model: FourM) -> float:
    """Width of the MLP as a multiple of D; the published rule rounds down."""
    per_ratio = 2 / 3 if layers.MLPS[model.mlp][1] else 1.0
    exact = model.mlp_dim / per_ratio / model.dim
    for ratio in (4, exact, exact + 1 / model.dim):
        if model.mlp_dim in (0, layers.hidden_dim(model.dim, model.mlp, ratio)):
            return ratio
    raise ValueError(f"mlp_dim {model.mlp_dim} is that of no published mlp_ratio")


def from_model(model: FourM) -> dict[str, Any]:
    """Published config of a model.

    Raises:
      ValueError: the model differs from every published one (not `as_published`, or an MLP
        width that no ratio gives).
    """
    if not model.as_published:
        raise ValueError("only models with as_published have a published config")
    ratio = _mlp_ratio(model)
    gated = layers.MLPS[model.mlp][1]
    activation = next(name for name, kinds in ACTIVATIONS.items() if kinds[gated] == model.mlp)
    config = {
        "domains_in": list(model.inputs),
        "domains_out": list(model.outputs),
        "dim": model.dim,
        "encoder_depth": model.encoder_depth,
        "decoder_depth": model.decoder_depth,
        "num_heads": model.num_heads,
        "mlp_ratio": ratio,
        "gated_mlp": gated,
        "act_layer": activation,
        "qk_norm": model.qk_norm,
        "share_modality_embeddings": model.share_modality_embeddings,
        "image_size": _image_size(model),
        "patch_size": 16,
        **{key: layers.has_bias(model.use_bias, part) for key, part in BIASES.items()},
    }
    # the published encoder-only class refuses these keys, so they appear only where they matter
    if model.num_registers:
        config["num_register_tokens"] = model.num_registers
    if not model.separate_targets:
        config["decoder_sep_mask"] = False
    if model.causal_targets:
        config["decoder_causal_mask"] = True
    return config
