"""All modalities, one entry each, grouped by the family of models that uses them."""

import dataclasses
from collections.abc import Iterable, Mapping

from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils.errors import unknown_value

# Of the scenes the picture is decoded first: captions are trained to ask for it, and what is read
# off a good picture beats a picture made after depth and semantics that a caption hardly settles.
SCENES = (
    ModalitySpec(
        name="rgb", kind="pixels", grid=(8, 8), patch_size=4, num_channels=3, source="rgb"
    ),
    ModalitySpec(
        name="tok_feature", kind="grid", vocab_size=256, grid=(8, 8), tokenizer="feature",
        source="feature", decoding_order=1,
    ),
    ModalitySpec(
        name="tok_depth", kind="grid", vocab_size=256, grid=(8, 8), tokenizer="depth",
        source="depth", decoding_order=2,
    ),
    ModalitySpec(
        name="tok_normal", kind="grid", vocab_size=256, grid=(8, 8), tokenizer="normal",
        source="normal", decoding_order=3,
    ),
    ModalitySpec(
        name="tok_semseg", kind="grid", vocab_size=256, grid=(8, 8), tokenizer="semseg",
        source="semseg", decoding_order=4,
    ),
    ModalitySpec(
        name="tok_edge", kind="grid", vocab_size=256, grid=(8, 8), tokenizer="edge",
        source="edge", decoding_order=5,
    ),
    ModalitySpec(
        name="tok_rgb", kind="grid", vocab_size=256, grid=(8, 8), tokenizer="rgb",
        source="rgb", decoding_order=0,
    ),
    ModalitySpec(
        name="feature_global", kind="global", vocab_size=64, max_tokens=4,
        tokenizer="feature_global", source="feature_global", decoding_order=7,
    ),
    ModalitySpec(
        name="caption", kind="sequence", vocab_size=4608, max_tokens=40, tokenizer="text",
        source="caption", decoding_order=8, table="text",
    ),
    ModalitySpec(
        name="det", kind="sequence", vocab_size=4608, max_tokens=26, tokenizer="text",
        source="det", decoding_order=9, table="text",
    ),
    ModalitySpec(
        name="color_palette", kind="sequence", vocab_size=4608, max_tokens=23, tokenizer="text",
        source="color_palette", decoding_order=10, table="text",
    ),
    ModalitySpec(
        name="metadata", kind="sequence", vocab_size=4608, max_tokens=33, chunked=True,
        tokenizer="text", source="metadata", decoding_order=11, table="text",
    ),
)  # fmt: skip

DIGITS = (
    ModalitySpec(
        name="rgb", kind="pixels", grid=(8, 8), patch_size=4, num_channels=3, source="rgb"
    ),
    ModalitySpec(
        name="tok_edge", kind="grid", vocab_size=256, grid=(8, 8), tokenizer="edge",
        source="edge", decoding_order=1,
    ),
    ModalitySpec(
        name="tok_rgb", kind="grid", vocab_size=256, grid=(8, 8), tokenizer="rgb",
        source="rgb", decoding_order=2,
    ),
    ModalitySpec(
        name="caption", kind="sequence", vocab_size=4608, max_tokens=10, tokenizer="text",
        source="caption", decoding_order=3, table="text",
    ),
    ModalitySpec(
        name="metadata", kind="sequence", vocab_size=4608, max_tokens=11, chunked=True,
        tokenizer="text", source="metadata", decoding_order=4, table="text",
    ),
)  # fmt: skip


def _tokens(name, vocab_size, size, source, order, tokenizer="") -> ModalitySpec:
    """Published image-like tokens on a square grid; `tokenizer` defaults to the source's."""
    return ModalitySpec(
        name=name, kind="grid", vocab_size=vocab_size, grid=(size, size), source=source,
        tokenizer=tokenizer or source, decoding_order=order,
    )  # fmt: skip


def _text(name, max_tokens, order, **fields) -> ModalitySpec:
    """Published text-like modality: 30,000 word pieces, a table of its own."""
    return ModalitySpec(
        name=name, kind="sequence", vocab_size=30_000, max_tokens=max_tokens, tokenizer="text",
        source=name, decoding_order=order, **fields,
    )  # fmt: skip


# The published modalities (docs/published.md#modalities), "@R" = side of the image in pixels;
# decoding order of the published demo (docs/published.md#generation). "@448": super-resolution.
FOURM = (
    ModalitySpec(
        name="rgb@224", kind="pixels", grid=(14, 14), patch_size=16, num_channels=3, source="rgb"
    ),
    _tokens("tok_clip@224", 8192, 14, "clip", 2),
    _tokens("tok_dinov2@224", 8192, 16, "dinov2", 3),  # patches of 14 pixels
    _tokens("tok_imagebind@224", 8192, 16, "imagebind", 4),
    _tokens("tok_depth@224", 8192, 14, "depth", 5),
    _tokens("tok_normal@224", 8192, 14, "normal", 6),
    _tokens("tok_semseg@224", 4096, 14, "semseg", 7),
    _tokens("tok_canny_edge@224", 8192, 14, "canny_edge", 8, tokenizer="edge"),
    _tokens("tok_sam_edge@224", 8192, 14, "sam_edge", 9, tokenizer="edge"),
    _tokens("tok_rgb@224", 16384, 14, "rgb", 10),
    ModalitySpec(
        name="tok_dinov2_global", kind="global", vocab_size=8192, max_tokens=16,
        tokenizer="dinov2_global", source="dinov2_global", decoding_order=1,
    ),
    ModalitySpec(
        name="tok_imagebind_global", kind="global", vocab_size=8192, max_tokens=16,
        tokenizer="imagebind_global", source="imagebind_global", decoding_order=1,
    ),
    ModalitySpec(
        name="t5_caption", kind="embedding", max_tokens=77, embedding_dim=4096, source="t5_caption"
    ),
    _text("caption", 256, 11),
    _text("det", 256, 12),
    _text("human_poses", 275, 13, max_positions=263),  # as published: fewer positions than tokens
    _text("sam_instance", 290, 14),
    _text("color_palette", 23, 15),
    _text("metadata", 40, 16, chunked=True),
    ModalitySpec(
        name="rgb@448", kind="pixels", grid=(28, 28), patch_size=16, num_channels=3, source="rgb"
    ),
    _tokens("tok_clip@448", 8192, 28, "clip", 2),
    _tokens("tok_depth@448", 8192, 28, "depth", 5),
    _tokens("tok_normal@448", 8192, 28, "normal", 6),
    _tokens("tok_semseg@448", 4096, 28, "semseg", 7),
    _tokens("tok_rgb@448", 16384, 28, "rgb", 10),
)  # fmt: skip

# What the published models read and write.
MOD7_OUT = (
    "tok_rgb@224", "tok_depth@224", "tok_normal@224", "tok_semseg@224", "tok_clip@224",
    "caption", "det",
)  # fmt: skip
MOD7_IN = ("rgb@224", *MOD7_OUT)
MOD21_OUT = (
    *MOD7_OUT, "tok_canny_edge@224", "tok_sam_edge@224", "tok_dinov2@224", "tok_imagebind@224",
    "tok_dinov2_global", "tok_imagebind_global", "human_poses", "sam_instance", "color_palette",
    "metadata",
)  # fmt: skip
MOD21_IN = ("rgb@224", "t5_caption", *MOD21_OUT)
SR_OUT = ("tok_rgb@448", "tok_depth@448", "tok_normal@448", "tok_semseg@448", "tok_clip@448")
SR_IN = (*MOD7_IN, "rgb@448", *SR_OUT)

FAMILIES: Mapping[str, tuple[ModalitySpec, ...]] = {
    "scenes": SCENES,
    "digits": DIGITS,
    "fourm": FOURM,
}


def resolve(
    family: str, names: Iterable[str], overrides: Mapping[str, Mapping] | None = None
) -> tuple[ModalitySpec, ...]:
    """Return the specs of `names` in that order, each with its overrides applied.

    Args:
      family: key of `FAMILIES`.
      names: modality names of that family, no repeats.
      overrides: {modality: {field: value}}, e.g. another grid or vocabulary size.

    Raises:
      ValueError: unknown family or modality (names the nearest and all allowed), a repeated name,
        an override of a modality that is not in `names` or of a field that does not exist.
    """
    names, overrides = tuple(names), dict(overrides or {})
    if family not in FAMILIES:
        raise ValueError(f"unknown modality family {family!r}, allowed: {sorted(FAMILIES)}")
    known = {spec.name: spec for spec in FAMILIES[family]}
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
