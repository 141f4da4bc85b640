"""All modalities, one entry each, grouped by the family of models that uses them."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from fourm_jax.modalities import classes
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils.errors import unknown_value


def _small(source: str, order: int, **fields: Any) -> ModalitySpec:
    """Image-like tokens of the small data sets: 8 x 8, of 256 codes unless said otherwise."""
    return ModalitySpec(
        name=f"tok_{source}",
        kind="grid",
        source=source,
        decoding_order=order,
        **{"grid": (8, 8), "vocab_size": 256, "tokenizer": source, **fields},
    )


def _small_text(name: str, max_tokens: int, order: int, **fields: Any) -> ModalitySpec:
    """Text of the small data sets: one table of 4,608 word pieces for all."""
    return ModalitySpec(
        name=name,
        kind="sequence",
        vocab_size=4608,
        max_tokens=max_tokens,
        source=name,
        tokenizer="text",
        decoding_order=order,
        table="text",
        **fields,
    )


def _tokens(
    name: str, vocab_size: int, size: int, source: str, order: int, **fields: Any
) -> ModalitySpec:
    """Published image-like tokens on a square grid; the tokenizer's name is the source's."""
    return ModalitySpec(
        name=name,
        kind="grid",
        vocab_size=vocab_size,
        grid=(size, size),
        source=source,
        decoding_order=order,
        **{"tokenizer": source, **fields},
    )


def _text(name: str, max_tokens: int, order: int, **fields: Any) -> ModalitySpec:
    """Published text-like modality: 30,000 word pieces, a table of its own."""
    return ModalitySpec(
        name=name,
        kind="sequence",
        vocab_size=30_000,
        max_tokens=max_tokens,
        tokenizer="text",
        source=name,
        decoding_order=order,
        **fields,
    )


# Of the scenes the picture is decoded first: captions are trained to ask for it, and what is read
# off a good picture beats a picture made after depth and semantics that a caption hardly settles.
SCENES = (
    ModalitySpec(
        name="rgb", kind="pixels", grid=(8, 8), patch_size=4, num_channels=3, source="rgb"
    ),
    _small("feature", 1, crop="feature_map"),
    _small("depth", 2, measure=("mae:unit=m",), picture="depth"),
    _small("normal", 3, crop="normals", measure=("angular_error",), picture="normals"),
    _small(
        "semseg",
        4,
        crop="labels",
        measure=("miou", "miou:metric=shapes_miou,first_class=2"),
        classes=classes.SCENES,
    ),
    _small("edge", 5, measure=("f1:metric=edge_f1",)),
    _small("rgb", 0),
    ModalitySpec(
        name="feature_global",
        kind="global",
        vocab_size=64,
        max_tokens=4,
        tokenizer="feature_global",
        source="feature_global",
        decoding_order=7,
    ),
    _small_text(
        "caption",
        40,
        8,
        measure=("scenes.caption_scores:ANY_PAIR", "scenes.caption_scores:ALL_PAIRS"),
    ),
    _small_text("det", 26, 9, text_form="boxes"),
    _small_text("color_palette", 23, 10, text_form="palette"),
    _small_text("metadata", 33, 11, text_form="metadata", chunked=True),
)

DIGITS = (
    ModalitySpec(
        name="rgb", kind="pixels", grid=(8, 8), patch_size=4, num_channels=3, source="rgb"
    ),
    _small("edge", 1, measure=("f1:metric=edge_f1",)),
    _small("rgb", 2),
    _small_text("caption", 10, 3),
    _small_text("metadata", 11, 4, text_form="metadata", chunked=True),
)

# A user's own pictures at 64 x 64 pixels, as small as the scenes: 8 x 8 patches of 8 pixels.
PICTURES = (
    ModalitySpec(
        name="rgb", kind="pixels", grid=(8, 8), patch_size=8, num_channels=3, source="rgb"
    ),
    _small("rgb", 0, vocab_size=2048),
    _small("canny_edge", 1, tokenizer="edge", measure=("f1:metric=edge_f1",)),
    _small_text("caption", 40, 2),
    _small_text("color_palette", 23, 3, text_form="palette"),
    _small_text("metadata", 33, 4, text_form="metadata", chunked=True),
)

# From a scene of 32 pixels to one of 64: what the larger picture has beyond the smaller one.
SUPER_RESOLUTION = (
    ModalitySpec(
        name="rgb", kind="pixels", grid=(8, 8), patch_size=4, num_channels=3, source="rgb"
    ),
    _small("detail", 0, grid=(16, 16), vocab_size=512, picture="normals"),
    _small_text("caption", 40, 1),
)


FEATURES = {"crop": "feature_map"}
DEPTH = {"measure": ("mae",), "picture": "depth"}
NORMALS = {"crop": "normals", "measure": ("angular_error",), "picture": "normals"}
LABELS = {"crop": "labels", "classes": classes.COCO}

# The published modalities (docs/published.md#modalities), "@R" = side of the image in pixels;
# decoding order of the published demo (docs/published.md#generation). "@448": super-resolution.
FOURM = (
    ModalitySpec(
        name="rgb@224", kind="pixels", grid=(14, 14), patch_size=16, num_channels=3, source="rgb"
    ),
    _tokens("tok_clip@224", 8192, 14, "clip", 2, **FEATURES),
    _tokens("tok_dinov2@224", 8192, 16, "dinov2", 3, **FEATURES),  # patches of 14 pixels
    _tokens("tok_imagebind@224", 8192, 16, "imagebind", 4, **FEATURES),
    _tokens("tok_depth@224", 8192, 14, "depth", 5, **DEPTH),
    _tokens("tok_normal@224", 8192, 14, "normal", 6, **NORMALS),
    _tokens("tok_semseg@224", 4096, 14, "semseg", 7, **LABELS),
    _tokens("tok_canny_edge@224", 8192, 14, "canny_edge", 8, tokenizer="edge"),
    _tokens("tok_sam_edge@224", 8192, 14, "sam_edge", 9, tokenizer="edge"),
    _tokens("tok_rgb@224", 16384, 14, "rgb", 10),
    ModalitySpec(
        name="tok_dinov2_global",
        kind="global",
        vocab_size=8192,
        max_tokens=16,
        tokenizer="dinov2_global",
        source="dinov2_global",
        decoding_order=1,
    ),
    ModalitySpec(
        name="tok_imagebind_global",
        kind="global",
        vocab_size=8192,
        max_tokens=16,
        tokenizer="imagebind_global",
        source="imagebind_global",
        decoding_order=1,
    ),
    ModalitySpec(
        name="t5_caption", kind="embedding", max_tokens=77, embedding_dim=4096, source="t5_caption"
    ),
    _text("caption", 256, 11),
    _text("det", 256, 12, text_form="boxes"),
    # As published: fewer positions than tokens.
    _text("human_poses", 275, 13, text_form="poses", max_positions=263),
    _text("sam_instance", 290, 14, text_form="instances"),
    _text("color_palette", 23, 15, text_form="palette"),
    _text("metadata", 40, 16, text_form="metadata", chunked=True),
    ModalitySpec(
        name="rgb@448", kind="pixels", grid=(28, 28), patch_size=16, num_channels=3, source="rgb"
    ),
    _tokens("tok_clip@448", 8192, 28, "clip", 2, **FEATURES),
    _tokens("tok_depth@448", 8192, 28, "depth", 5, **DEPTH),
    _tokens("tok_normal@448", 8192, 28, "normal", 6, **NORMALS),
    _tokens("tok_semseg@448", 4096, 28, "semseg", 7, **LABELS),
    _tokens("tok_rgb@448", 16384, 28, "rgb", 10),
)

# What the published models read and write.
MOD7_OUT = (
    *("tok_rgb@224", "tok_depth@224", "tok_normal@224", "tok_semseg@224", "tok_clip@224"),
    *("caption", "det"),
)
MOD7_IN = ("rgb@224", *MOD7_OUT)
MOD21_OUT = (
    *MOD7_OUT,
    *("tok_canny_edge@224", "tok_sam_edge@224", "tok_dinov2@224", "tok_imagebind@224"),
    *("tok_dinov2_global", "tok_imagebind_global"),
    *("human_poses", "sam_instance", "color_palette", "metadata"),
)
MOD21_IN = ("rgb@224", "t5_caption", *MOD21_OUT)
SR_OUT = ("tok_rgb@448", "tok_depth@448", "tok_normal@448", "tok_semseg@448", "tok_clip@448")
SR_IN = (*MOD7_IN, "rgb@448", *SR_OUT)

FAMILIES: Mapping[str, tuple[ModalitySpec, ...]] = {
    "scenes": SCENES,
    "digits": DIGITS,
    "pictures": PICTURES,
    "super_resolution": SUPER_RESOLUTION,
    "fourm": FOURM,
}


def of_source(source: str) -> ModalitySpec:
    """Return the first modality of any family that reads this raw record field as ids or text.

    All modalities of one field agree on `text_form`, `crop` and the fields of the array behind it.

    Raises:
      ValueError: no modality reads it (names the nearest and all fields that one reads).
    """
    found = sources().get(source)
    if found is None:
        raise ValueError(unknown_value("record field", source, sources()))
    return found


def sources(own: Iterable[ModalitySpec] = ()) -> dict[str, ModalitySpec]:
    """{record field: the first modality that reads it}, those with tokens first.

    Args:
      own: modalities of a run, some of which the registry may not have; they come before its.
    """
    every = [spec for family in FAMILIES.values() for spec in family]
    found: dict[str, ModalitySpec] = {}
    for specs in (every, [*own]):
        specs.sort(key=lambda spec: not spec.is_token)
        found |= {spec.source: spec for spec in reversed(specs)}
    return found


def resolve(
    family: str,
    names: Iterable[str],
    overrides: Mapping[str, Mapping] | None = None,
    added: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[ModalitySpec, ...]:
    """Return the specs of `names` in that order, each with its overrides applied.

    Args:
      family: key of `FAMILIES`.
      names: modality names of that family, no repeats.
      overrides: {modality: {field: value}}, e.g. another grid or vocabulary size.
      added: {modality: {field: value}} of modalities that the family does not have, of which
        `names` may name some.

    Raises:
      ValueError: unknown family or modality (names the nearest and all allowed), a repeated name,
        an override of a modality that is not in `names` or of a field that does not exist, an
        added one that the family has or that is none.
    """
    names, overrides = tuple(names), dict(overrides or {})
    if family not in FAMILIES:
        raise ValueError(f"unknown modality family {family!r}, allowed: {sorted(FAMILIES)}")
    known = {spec.name: spec for spec in FAMILIES[family]}
    for name in added or {}:
        if name in known:
            raise ValueError(f"modality {name!r} is in family {family!r}: give it in overrides")
    known |= {spec.name: spec for spec in described(added or {})}
    for name in names:
        if name not in known:
            raise ValueError(unknown_value("modality", name, known))
    if len(set(names)) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"modalities listed twice: {repeated}")
    for name, changes in overrides.items():
        if name not in names:
            raise ValueError(unknown_value("modality in overrides", name, names))
        fields = {field.name for field in dataclasses.fields(ModalitySpec)} - {"name", "kind"}
        for field in changes:
            if field not in fields:
                raise ValueError(unknown_value(f"field of modality {name!r}", field, fields))
    return tuple(known[name].replace(**overrides.get(name, {})) for name in names)


def described(added: Mapping[str, Mapping[str, Any]]) -> tuple[ModalitySpec, ...]:
    """The modalities that a config describes, {name: {field of `ModalitySpec`: value}}.

    Raises:
      ValueError: a field that does not exist, no kind, or what `ModalitySpec` refuses.
    """
    return tuple(_described(name, values) for name, values in added.items())


def _described(name: str, values: Mapping[str, Any]) -> ModalitySpec:
    fields = {field.name for field in dataclasses.fields(ModalitySpec)} - {"name"}
    for field in values:
        if field not in fields:
            raise ValueError(unknown_value(f"field of modality {name!r}", field, fields))
    if "kind" not in values:
        raise ValueError(f"modality {name!r} has no kind")
    return ModalitySpec(name=name, **values)
