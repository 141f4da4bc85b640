"""Quantizer ids at near ties: two codes score almost equally, and rounding decides."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Float, Int

from experiments.parity.quantity import NEAR_TIE
from fourm_jax.models import quantizers


def gaps(
    quantizer: nn.Module,
    variables: Mapping[str, Any],
    latents: Float[np.ndarray, "b y x d"],
    found: Int[np.ndarray, "b y x h"],
    expected: Int[np.ndarray, "b y x h"],
) -> Float[np.ndarray, "b y x h"]:
    """Score of the id found less that of the id expected: cosines, -distances² or logits."""
    latents, found, expected = (np.asarray(x) for x in (latents, found, expected))
    heads = latents.astype(np.float64).reshape(*found.shape, -1)
    if isinstance(quantizer, quantizers.Memcodes):
        own = variables["params"]["quantizer"]
        keys = np.einsum(
            "hkd,hdc->hkc", *(np.asarray(own[n], np.float64) for n in ("codes", "to_keys"))
        )
        scores = np.einsum("...hc,hkc->...hk", heads, keys) * keys.shape[-1] ** -0.5
    else:
        codes = np.asarray(variables["codebook"]["quantizer"]["codes"], np.float64)
        if quantizer.metric == "cosine":
            heads, codes = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (heads, codes))
            scores = heads @ codes.T
        else:
            scores = 2 * heads @ codes.T - np.square(codes).sum(-1)
    best, recorded = (
        np.take_along_axis(scores, ids[..., None].astype(np.int64), axis=-1)[..., 0]
        for ids in (found, expected)
    )
    return best - recorded


def allowed(found: np.ndarray, expected: np.ndarray, gaps: np.ndarray) -> bool:
    """Whether ids differ, and nowhere but at near ties."""
    different = np.asarray(found) != np.asarray(expected)
    return bool(different.any() and (gaps[different] < NEAR_TIE).all())
