"""The published masking mixtures, as plain dicts for `masking.mixture.make_mixture`.

Source: docs/published.md#mixtures.

One value per component of the mixture; how many tokens a sample shows and is asked for is part of
each recipe. `k` equal components have equal weight unless `weights` says otherwise.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fourm_jax.modalities import registry

ALL2ALL = (0.01, 0.1, 1.0, 10.0)  # from "one modality at a time" to "a bit of everything"


def mod7_rgb2all() -> dict[str, Any]:
    """4M-7: half of the samples all → all, half RGB pixels → all (alpha 0.5)."""
    return {
        "input_alphas": _same_but(registry.MOD7_IN, [0.0, 0.5], {"rgb@224": [1000.0, 0.5]}),
        "target_alphas": _same_but(registry.MOD7_OUT, [0.5, 0.5]),
        "input_range": (128, 128),
        "target_range": (128, 128),
    }


def mod7_capbias() -> dict[str, Any]:
    """4M-7: four all → all components, RGB pixels → all, and one that sees much of the caption."""
    inputs = [*ALL2ALL, 0.0, 0.05]
    return {
        "input_alphas": _same_but(
            registry.MOD7_IN,
            inputs,
            {"rgb@224": [*ALL2ALL, 1000.0, 0.05], "caption": [*ALL2ALL, 0.0, 5.0]},
        ),
        "target_alphas": _same_but(registry.MOD7_OUT, [*ALL2ALL, 0.5, 0.5]),
        "keep": {"caption": ["random"] * 5 + ["all"]},
        "weights": [1.0] * 6,
        "input_range": (128, 128),
        "target_range": (128, 128),
    }


def mod7_text2image() -> dict[str, Any]:
    """4M-7-T2I: from captions that are mostly shown in full."""
    return {
        "input_alphas": _same_but(registry.MOD7_IN, [0.05, 0.2, 1.0], {"caption": [5.0, 0.2, 1.0]}),
        "target_alphas": _same_but(registry.MOD7_OUT, [1.0, 1.0, 1.0]),
        "keep": {"caption": ["all", "random", "random"]},
        "input_range": (64, 256),
        "target_range": (256, 256),
    }


def mod7_superres() -> dict[str, Any]:
    """4M-7-SR: tokens of 448-pixel images from everything at 224 and parts of themselves."""
    rgb = [5.0, 0.05, 0.2, 1.0]
    return {
        "input_alphas": _same_but(
            registry.SR_IN,
            [0.05, 0.05, 0.2, 1.0],
            {"tok_rgb@224": rgb, "tok_rgb@448": rgb, "caption": [0.05, 5.0, 0.2, 1.0]},
        ),
        "target_alphas": _same_but(
            registry.SR_OUT, [0.05, 1.0, 1.0, 1.0], {"tok_rgb@448": [5.0, 1.0, 1.0, 1.0]}
        ),
        "keep": {"caption": ["random", "all", "random", "random"]},
        "input_range": (64, 1024),
        "target_range": (1024, 1024),
    }


def mod21() -> dict[str, Any]:
    """4M-21: as `mod7_capbias`, plus one component biased to each kind of caption.

    The T5 embedding keeps its published target shares although it can never be a target: with
    budget="reference" they are wasted as they were, with "fill" they go to the others.
    """
    targets = [*ALL2ALL, 0.5, 0.5, 0.5]
    return {
        "input_alphas": _same_but(
            registry.MOD21_IN,
            [*ALL2ALL, 0.0, 0.05, 0.05],
            {
                "rgb@224": [*ALL2ALL, 1000.0, 0.05, 0.05],
                "caption": [*ALL2ALL, 0.0, 5.0, 0.0],
                "t5_caption": [*ALL2ALL, 0.0, 0.0, 5.0],
            },
        ),
        "target_alphas": _same_but(
            registry.MOD21_OUT,
            targets,
            {"caption": [*ALL2ALL, 0.5, 0.0, 0.5], "t5_caption": [*ALL2ALL, 0.5, 0.5, 0.0]},
        ),
        "keep": {
            "caption": ["random"] * 5 + ["all", "random"],
            "t5_caption": ["random"] * 6 + ["all"],
            "color_palette": "binary",
        },
        "weights": [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5],
        "input_range": (256, 256),
        "target_range": (256, 256),
    }


def c4() -> dict[str, Any]:
    """Text alone, for the C4 share of 4M-21."""
    return {"input_alphas": {"caption": 1.0}, "target_alphas": {"caption": 1.0}}


def _same_but(
    names: Iterable[str],
    values: Sequence[float],
    others: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, list[float]]:
    """The same values for all names, but for `others`."""
    every = {**dict.fromkeys(names, values), **(others or {})}
    return {name: list(own) for name, own in every.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of samples of a mixture.

    Attributes:
      weight: how often it is drawn.
      seen, wanted: {modality: Dirichlet concentration}; others get no share.
      num_seen: fewest and most tokens that are seen.
      alone: whether nothing but `seen` may fill the slots for inputs.
      whole: sequences of which all is seen; how much of others, says `of_kinds`.
    """

    weight: float
    seen: Mapping[str, float]
    wanted: Mapping[str, float]
    num_seen: tuple[int, int] = (64, 64)
    alone: bool = True
    whole: Sequence[str] = ()


def of_kinds(
    names: Iterable[str],
    targets: Iterable[str],
    kinds: Sequence[Kind],
    *,
    keep: Mapping[str, str],
    num_targets: int,
) -> dict[str, Any]:
    """Return a mixture of kinds of samples.

    Args:
      names: of all modalities.
      targets: of those that have tokens.
      keep: of sequences, how much is seen where a kind does not show all, see `masking.mixture`.
    """
    return {
        "input_alphas": {name: [kind.seen.get(name, 0.0) for kind in kinds] for name in names},
        "target_alphas": {name: [kind.wanted.get(name, 0.0) for kind in kinds] for name in targets},
        "keep": {name: _kept(name, scheme, kinds) for name, scheme in keep.items()},
        "weights": [kind.weight for kind in kinds],
        "input_range": [kind.num_seen for kind in kinds],
        "target_range": (num_targets, num_targets),
        "share_leftover": [not kind.alone for kind in kinds],
    }


def _kept(name: str, scheme: str, kinds: Sequence[Kind]) -> str | list[str]:
    own = ["all" if name in kind.whole else scheme for kind in kinds]
    return own if "all" in own else scheme
