"""Your own pictures: pixels, edges, palette, metadata and captions, several crops of each.

`experiments.own_pictures` does all of this in one command; step by step:

python -m experiments.build_data --images=DIR --output=runs/pictures/raw
python -m experiments.train --config=configs/data/pictures.py:tokenizer=rgb --workdir=runs/rgb
python -m experiments.tokenize_dataset --config=configs/data/pictures.py:tokenize --split=train \
    --tokenizers=DIR --output=runs/pictures/data

DIR holds the tokenizers `rgb`, `edge` (see configs/tokenizers/) and `text`. With labels of models
in the raw data, add their modalities (tok_depth@224, det, …) to MODALITIES.

| size        | pixels    | tokens of a picture | tokenizers | trains on   |
|-------------|-----------|---------------------|------------|-------------|
| nano        | 64 x 64   | 8 x 8 of 2,048      | small.py   | 2 CPU cores |
| small, base | 224 x 224 | 14 x 14 of 16,384   | vit.py     | a GPU       |
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import datasets, mixtures
from configs.tokenizers import signals, small, vit
from fourm_jax.modalities import registry
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

SIZES = ("nano", "small", "base")
LOCAL_SIDE = 32  # pixels of what the ViTs of `runlocal` see
MODALITIES = (
    *("rgb@224", "tok_rgb@224", "tok_canny_edge@224"),
    *("caption", "color_palette", "metadata"),
)
NANO = tuple(spec.name for spec in registry.PICTURES)
NANO_TARGETS = tuple(spec.name for spec in registry.PICTURES if spec.is_token)
# Name of a tokenizer: the record field, its signal, loss and number of codes (nano; as published).
TOKENIZERS: dict[str, tuple[str, dict[str, Any], str, int, int]] = {
    "rgb": ("rgb", signals.RGB, "mse", 2_048, 16_384),
    "edge": ("canny_edge", signals.EDGE, "binary_cross_entropy", 256, 8_192),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the tokens as a data set; arguments: size, data (folder of shards), weight, runlocal.

    With raw (folder of the built data set): tokenize, num_crops; tokenizer (rgb, edge). `runlocal`
    reads the pictures where data or raw has them; else random tokens, the scanned digits.
    """
    args = config_lib.parse_arg(
        arg,
        size="base",
        data="runs/pictures/data",
        raw="runs/pictures/raw",
        weight=1.0,
        tokenize=False,
        num_crops=4,
        tokenizer="",
        runlocal=False,
    )
    names = modalities(args.size)
    if args.tokenize:
        return tokenize(args.size, names, raw=args.raw, num_crops=args.num_crops)
    if args.tokenizer:
        has_raw = datasets.exist(args.raw)
        return tokenizer(
            args.tokenizer, args.size, args.raw if has_raw or not args.runlocal else "",
            runlocal=args.runlocal,
        )  # fmt: skip
    if args.runlocal and not datasets.exist(args.data):
        mask, family = mixture(args.size, names), family_of(args.size)
        return datasets.fake_tokens(
            "pictures", names, mask, family=family, weight=args.weight, num_records=64
        )
    return tokens(args.size, names, data=args.data, weight=args.weight)


def family_of(size: str) -> str:
    """The family of the modalities of a size."""
    return "pictures" if size == "nano" else "fourm"


def modalities(size: str, *, captions: bool = True) -> tuple[str, ...]:
    """Return the modalities of a size.

    Args:
      captions: whether any picture has one.

    Raises:
      ValueError: no such size.
    """
    if size not in SIZES:
        raise ValueError(errors.unknown_value("size", size, SIZES))
    names = NANO if size == "nano" else MODALITIES
    return tuple(name for name in names if captions or name != "caption")


def image_size(size: str) -> int:
    """Pixels of the sides of a crop."""
    return 64 if size == "nano" else 224


def tokens(
    size: str, names: tuple[str, ...], *, data: str, weight: float = 1.0
) -> ml_collections.ConfigDict:
    """Return the tokens in `data` as a data set."""
    return datasets.tokens("pictures", names, mixture(size, names), data=data, weight=weight)


def tokenize(
    size: str, names: tuple[str, ...], *, raw: str, num_crops: int = 4, runlocal: bool = False
) -> ml_collections.ConfigDict:
    """Return how the tokens of the built data set in `raw` are made."""
    side = LOCAL_SIDE if runlocal and size != "nano" else image_size(size)
    return datasets.tokenize(
        "token_shards",
        {"directory": raw},
        names,
        family=family_of(size),
        crops=datasets.crops(num_crops, side),
        overrides=local_grids(size, names) if runlocal else {},
    )


def local_grids(size: str, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Overrides of the modalities that fit the tokenizers of `runlocal`."""
    kinds = {spec.name: spec.kind for spec in registry.FAMILIES[family_of(size)]}
    pictured = [name for name in names if kinds[name] in ("pixels", "grid") and size != "nano"]
    grid: dict[str, Any] = {"grid": (LOCAL_SIDE // 16, LOCAL_SIDE // 16)}
    tokens = {**grid, "vocab_size": vit.LOCAL_CODES}
    return {name: tokens if kinds[name] == "grid" else grid for name in pictured}


def tokenizer(
    name: str, size: str, raw: str, *, num_steps: int = 0, runlocal: bool = False
) -> ml_collections.ConfigDict:
    """Return the training of one tokenizer.

    Args:
      raw: folder of the built data set; "": the scanned digits.
      num_steps: default: as the recipe says.
      runlocal: four steps.
    """
    if name not in TOKENIZERS:
        raise ValueError(errors.unknown_value("pictures tokenizer", name, TOKENIZERS))
    field, signal, loss, num_codes, num_published = TOKENIZERS[name]
    side = LOCAL_SIDE if runlocal and size != "nano" else image_size(size)
    arguments = {"directory": raw, "image_size": side, "fields": (field,), "num_crops": 4}
    data: Mapping[str, Any] = {
        "name": "pictures",
        "source": "picture_crops",
        "arguments": arguments,
    }
    if not raw:
        field = name  # as the digits call it
        data = {"name": "digits", "source": "digits", "arguments": {"image_size": side}}
    sizes: dict[str, Any] = {"num_steps": num_steps, "source_field": field, "runlocal": runlocal}
    if size == "nano":
        return small.make(
            name, signal, loss, data, patch_size=8, num_codes=num_codes, dim=128, **sizes
        )
    return vit.make(name, signal, loss, data, num_codes=num_published, **sizes)


def mixture(size: str, names: tuple[str, ...]) -> dict[str, Any]:
    """How samples of these modalities are masked: 4M-21's mixture, of nano that of the scenes."""
    if size != "nano":
        return datasets.only(mixtures.mod21(), names)
    targets = tuple(name for name in names if name in NANO_TARGETS)
    shares = {"color_palette": 0.15, "metadata": 0.2}
    everything = {name: shares.get(name, 0.5) for name in targets}
    picture = {"tok_rgb": 10.0, "tok_canny_edge": 1.0, "color_palette": 0.5}
    # What a picture is asked for by: its caption, or its edges where no picture has one.
    cue = "caption" if "caption" in names else "tok_canny_edge"
    wanted = {name: share for name, share in picture.items() if name != cue}
    kind, whole = mixtures.Kind, (cue,) if cue == "caption" else ()
    part = {cue: 10.0, "tok_rgb": 0.5}
    kinds = (
        kind(weight=0.58, seen={"rgb": 1.0}, wanted=everything, alone=False),
        kind(weight=0.16, seen=dict.fromkeys(names, 0.5), wanted=everything, alone=False),
        kind(weight=0.13, seen={cue: 1.0}, wanted=wanted, whole=whole),
        kind(weight=0.10, seen=part, wanted=wanted, num_seen=(16, 64), whole=whole),
        kind(weight=0.03, seen={cue: 1.0}, wanted=everything, num_seen=(0, 0)),
    )
    keep = {"metadata": "random", "color_palette": "binary"}
    if cue == "caption":
        keep["caption"] = "random"
    return mixtures.of_kinds(names, targets, kinds, keep=keep, num_targets=96)
