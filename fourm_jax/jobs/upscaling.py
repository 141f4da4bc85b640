"""Scenes enlarged by a second model, beside bicubic enlargement (configs/super_resolution.py)."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from fourm_jax.evals.measures import psnr
from fourm_jax.generate.generator import Generator
from fourm_jax.scenes import detail, edges, world

PIXELS, DETAIL = "rgb", "tok_detail"


def enlarge(
    upscaler: Generator, pictures: UInt8[np.ndarray, "b h w 3"], **options: Any
) -> UInt8[np.ndarray, "b h2 w2 3"]:
    """Pictures of twice the sides, with the detail that the model sees in them.

    Args:
      options: of `Generator.generate`.

    Raises:
      ValueError: a model without detail, or what `generate` refuses.
    """
    made = upscaler.generate({PIXELS: pictures}, [DETAIL], **options)
    return detail.add(pictures, made.decoded[DETAIL].raw)


def judge(
    made: UInt8[np.ndarray, "b h w 3"], true: UInt8[np.ndarray, "b h w 3"]
) -> dict[str, float]:
    """How near enlarged pictures are to true ones, and F1 of their edges (Canny)."""
    found, wanted = _edges(made), _edges(true)
    total = found.sum() + wanted.sum()
    return {
        "PSNR": psnr.PeakSignalToNoise().score(made, true),
        "edge F1": float(2 * (found & wanted).sum() / max(total, 1)),
    }


def bound(
    upscaler: Generator, small: UInt8[np.ndarray, "b h w 3"], true: UInt8[np.ndarray, "b h2 w2 3"]
) -> UInt8[np.ndarray, "b h2 w2 3"]:
    """What the tokenizer makes of the true detail: no model with it can be nearer."""
    tokenizer = upscaler.tokenizer(DETAIL)
    return detail.add(small, tokenizer.decode(tokenizer.encode(detail.of(small, true))))


def true_pictures(small: UInt8[np.ndarray, "b h w 3"]) -> UInt8[np.ndarray, "b h2 w2 3"]:
    """The first held-out scenes, of twice the side.

    Raises:
      ValueError: `small` are no pictures of these scenes.
    """
    numbers, side = np.arange(len(small)), small.shape[1]
    if not np.array_equal(
        world.SceneSource("test", len(small), side).records(numbers)["rgb"], small
    ):
        raise ValueError("the held-out records are no scenes of seed 0, which are rendered larger")
    large = world.SceneSource("test", len(small), detail.FACTOR * side)
    return np.asarray(large.records(numbers)["rgb"])


def _edges(pictures: UInt8[np.ndarray, "b h w 3"]) -> Bool[np.ndarray, "b h w"]:
    channels = [jnp.asarray(pictures[..., index], jnp.float32) / 255 for index in range(3)]
    return np.asarray(edges.canny(channels))
