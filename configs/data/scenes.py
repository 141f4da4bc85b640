"""The rendered 3-D scenes: how they are made, tokenized and masked.

    python -m experiments.train --config=configs/data/scenes.py:tokenizer=depth --workdir=runs/depth
    python -m experiments.tokenize_dataset --config=configs/data/scenes.py:tokenize --split=train \
        --tokenizers=runs/quickstart/tokenizers --output=runs/quickstart/data

Tokenizers (configs/tokenizers/small.py) read the raw scenes that `make quickstart` writes to
runs/quickstart/raw, or with `raw=render` render on the way; 8-11 seconds of one CPU core each, that
of pictures 40.
Errors on 256 held-out scenes after training on 4,096:

| name           | error                      | relative to a constant |
|----------------|----------------------------|------------------------|
| rgb            | 25.0 dB PSNR               |                        |
| depth          | 0.13 m                     | 0.12 x per-pixel mean  |
| normal         | 4.9 degrees                | 0.19 x per-pixel mean  |
| semseg         | 0.95 mIoU                  |                        |
| edge           | 0.92 F1                    |                        |
| feature        | 88 % of variance explained |                        |
| feature_global | 78 % of variance explained | 4 codes of 64          |

`tokenize,tfds` reads the TFDS data set `fourm_scenes` instead of rendering:
tfds build fourm_jax/scenes/tfds_builders/fourm_scenes --file_format=array_record
"""

import functools
from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import datasets, mixtures
from configs.tokenizers import signals, small
from fourm_jax.modalities import registry
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

PIXELS = "rgb"
TEXT = ("caption", "det", "color_palette", "metadata")
NAMES = tuple(spec.name for spec in registry.FAMILIES["scenes"])
TARGETS = tuple(spec.name for spec in registry.FAMILIES["scenes"] if spec.is_token)
# Fields of a raw scene that tokenizers and text modalities read.
SOURCE_FIELDS = tuple(dict.fromkeys(spec.source for spec in registry.FAMILIES["scenes"]))
RECORDS: dict[str, Any] = {"source": "scenes", "arguments": {"image_size": 32, "seed": 0}}
NUM_RECORDS = {"train": 16_384, "test": 512}
TFDS_FIELDS = {
    "rgb": ("picture", "image"),
    **{name: ("labels", name) for name in ("semseg", "instance", "edge", "instance_edge")},
    **{name: ("array", name) for name in ("depth", "normal", "feature", "feature_global")},
    **{name: ("array", name) for name in ("poses", "num_objects", "color_palette")},
    "caption": ("text", "caption"),
    "det": ("boxes", "objects"),
    "metadata": ("json_value", "metadata"),
}
# Outlines of objects in eight colours need more codes than a depth or a class: with 256 of them and
# a plain error, pictures lose their shapes before any trunk sees them. The masks below practise
# the drafts.
OVERRIDES: dict[str, dict[str, Any]] = {
    "tok_rgb": {"vocab_size": 1_024, "drafts": ("det", "tok_semseg")}
}
# Signal and loss by tokenizer and field; means and deviations are of the training scenes.
TOKENIZERS: dict[str, tuple[dict[str, Any], str]] = {
    "rgb": (signals.RGB, "mse_colourful"),
    "depth": ({"axes": "hw", "low": 0.5, "high": 10.0, "mean": 5.85, "std": 3.0}, "l1"),
    "normal": ({"num_channels": 3, "low": -1.0, "high": 1.0, "std": 0.5, "unit": True}, "mse"),
    "semseg": (
        {"axes": "hw", "dtype": "uint8", "kind": "classes", "num_classes": 6},
        "cross_entropy",
    ),
    "edge": (signals.EDGE, "binary_cross_entropy"),
    "feature": ({"num_channels": 12}, "smooth_l1"),
    "feature_global": ({"axes": "c", "num_channels": 32}, "mse"),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the tokens as a data set; arguments: data (folder of shards), weight.

    tokenize: how they are made; with tfds from TFDS, kept in data_dir. tokenizer (a name of
    TOKENIZERS): training of one, with raw (folder of raw scenes, or "render") and runlocal.
    """
    args = config_lib.parse_arg(
        arg,
        data="runs/quickstart/data",
        raw="runs/quickstart/raw",
        weight=1.0,
        tokenize=False,
        tfds=False,
        data_dir="",
        tokenizer="",
        runlocal=False,
    )
    if args.tokenize and args.tfds:
        arguments = {"dataset": "fourm_scenes", "fields": TFDS_FIELDS, "data_dir": args.data_dir}
        return tokenize({"source": "tfds", "arguments": arguments})
    if args.tokenize:
        return tokenize()
    if args.tokenizer:
        return tokenizer(args.tokenizer, _raw(args.raw, args.runlocal), args.runlocal)
    return tokens(args.data, weight=args.weight)


def _raw(directory: str, runlocal: bool) -> dict[str, Any]:
    """Raw scenes from a folder, or rendered on the way."""
    if runlocal:
        return {"name": "raw_scenes", "source": "scenes", "arguments": {"num_records": 64}}
    if directory == "render":
        return {"name": "raw_scenes", "source": "scenes", "arguments": {}}
    arguments = {"directory": directory}
    return {"name": "raw_scenes", "source": "token_shards", "arguments": arguments}


def tokens(data: str, weight: float = 1.0, palettes: bool = False) -> ml_collections.ConfigDict:
    """Return the tokens in `data` as a data set, under the masks of `mixture`."""
    return datasets.tokens("scenes", NAMES, mixture(palettes), data=data, weight=weight)


def tokenize(
    records: Mapping[str, Any] = RECORDS,
    num_records: Mapping[str, int] = NUM_RECORDS,
    records_per_shard: int = 4_096,
) -> ml_collections.ConfigDict:
    """Return how they are made of `records`, a source and its arguments."""
    return datasets.tokenize(
        **records,
        modalities=NAMES,
        family="scenes",
        num_records=num_records,
        records_per_shard=records_per_shard,
        # Texts in one fixed order: a small model that writes fields in random order repeats some
        # and forgets others.
        seed=None,
        crops=datasets.crops(0, 32),
        overrides=OVERRIDES,
    )


def tokenizer(name: str, data: Mapping[str, Any], runlocal: bool) -> ml_collections.ConfigDict:
    """Return the training of one tokenizer on `data`."""
    if name not in TOKENIZERS:
        raise ValueError(errors.unknown_value("scenes tokenizer", name, TOKENIZERS))
    signal, loss = TOKENIZERS[name]
    settings: dict[str, Any] = {"patch_size": 1 if name == "feature" else 4}
    if name == "rgb":
        num_codes = OVERRIDES["tok_rgb"]["vocab_size"]
        settings |= {"num_codes": num_codes, "num_steps": 1_200, "euclidean": True}
    return small.make(name, signal, loss, data, runlocal=runlocal, **settings)


def mixture(palettes: bool = False) -> dict[str, Any]:
    """Kinds of samples: what is seen, how often, and how much of it.

    Dirichlet concentrations per modality and kind (docs/published.md#mixtures); `keep` says how
    much of a sequence may be seen: a random share, all of it, or all or nothing. As in generation,
    a caption is seen alone or with a part of the picture, and its targets are nearly all of that
    picture: with other tokens in its empty slots, or its targets divided evenly, the trunk hardly
    learned to tie words to places. Samples that see nothing are what guidance compares with.

    Nearly half of the samples practise the steps from a caption to a picture: its boxes, then
    the classes inside of them, then the picture. Each step leaves little to guess, where a picture
    from its caption alone takes all decisions at once.

    Args:
      palettes: whether 18 % of the samples practise the way from depth and palette to a picture,
        taken from the others. Without them a palette is not read; a nano pays for them with what
        it sees in pictures, a larger trunk does not (docs/results.md#a-longer-run).
    """
    # Less of what is long, noisy or costly (a head of 4,608 rows): values of colours and numbers.
    shares = {"color_palette": 0.15, "metadata": 0.2, "det": 0.3, "feature_global": 0.2}
    everything = {name: shares.get(name, 0.5) for name in TARGETS}
    picture = {"tok_rgb": 10.0, "tok_semseg": 3.0, "det": 3.0, "color_palette": 0.5}
    boxes = {"det": 20.0, "tok_semseg": 1.0, "tok_rgb": 2.0}
    outline, surface = {"tok_semseg": 4.0, "tok_rgb": 4.0}, {"tok_rgb": 10.0, "tok_semseg": 1.0}
    caption, words = {"caption": 1.0}, {"caption": 10.0}
    layout = {**words, "det": 10.0}
    sketch = {**layout, "tok_semseg": 0.5}
    painting = {**sketch, "tok_rgb": 0.5}
    kind = mixtures.Kind
    worded = functools.partial(kind, whole=("caption",))
    laid_out = functools.partial(kind, whole=("caption", "det"))
    weights = (0.27, 0.04, 0.12, 0.10) if palettes else (0.36, 0.07, 0.14, 0.14)
    from_pixels, from_any, to_outline, to_surface = weights
    kinds = (
        kind(weight=from_pixels, seen={PIXELS: 1.0}, wanted=everything, alone=False),
        kind(weight=from_any, seen=dict.fromkeys(NAMES, 0.5), wanted=everything, alone=False),
        worded(weight=0.04, seen=caption, wanted=picture),
        worded(weight=0.03, seen={**words, "tok_rgb": 0.5}, wanted=picture, num_seen=(16, 64)),
        kind(weight=0.03, seen=caption, wanted=everything, num_seen=(0, 0)),
        worded(weight=0.05, seen=caption, wanted=boxes),
        laid_out(weight=0.14, seen=layout, wanted={"tok_semseg": 10.0, "tok_rgb": 10.0}),
        laid_out(weight=to_outline, seen=sketch, wanted=outline, num_seen=(48, 96)),
        laid_out(weight=to_surface, seen=painting, wanted=surface, num_seen=(48, 96)),
        *(_from_palettes(surface) if palettes else ()),
    )
    keep = {**dict.fromkeys(TEXT, "random"), "color_palette": "binary"}
    return mixtures.of_kinds(NAMES, TARGETS, kinds, keep=keep, num_targets=96)


def _from_palettes(surface: Mapping[str, float]) -> tuple[mixtures.Kind, ...]:
    """A palette beside a depth to the words for its colours, and beside the drafts to `surface`."""
    drafts = {"det": 3.0, "tok_depth": 0.5, "tok_semseg": 0.5, "tok_rgb": 0.5}
    return (
        mixtures.Kind(
            weight=0.07,
            seen={"tok_depth": 10.0, "color_palette": 10.0},
            wanted={"caption": 10.0, "tok_rgb": 2.0},
            num_seen=(87, 96),
            whole=("color_palette",),
        ),
        mixtures.Kind(
            weight=0.11,
            seen={"color_palette": 10.0, **drafts},
            wanted=surface,
            num_seen=(64, 96),
            whole=("color_palette", "det"),
        ),
    )
