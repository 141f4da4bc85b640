"""Scenes enlarged by a second model, beside bicubic enlargement (configs/super_resolution.py)."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, UInt8

from fourm_jax.evals import bootstrap
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
    return {
        "PSNR": psnr.PeakSignalToNoise().score(made, true),
        "edge F1": _f1(_edges(made), _edges(true)),
    }


def gains(
    made: UInt8[np.ndarray, "b h w 3"],
    plain: UInt8[np.ndarray, "b h w 3"],
    true: UInt8[np.ndarray, "b h w 3"],
) -> dict[str, tuple[float, float]]:
    """By how much `made` is better than `plain` in each number of `judge`.

    The central 95 % over sets of as many scenes, drawn alike for both (`evals.bootstrap`).
    """
    fidelity, found, wanted = psnr.PeakSignalToNoise().score, _edges(made), _edges(true)
    before = _edges(plain)

    def of_fidelity(rows: Int[np.ndarray, "n"]) -> float:
        return fidelity(made[rows], true[rows]) - fidelity(plain[rows], true[rows])

    def of_edges(rows: Int[np.ndarray, "n"]) -> float:
        return _f1(found[rows], wanted[rows]) - _f1(before[rows], wanted[rows])

    return {
        "PSNR": bootstrap.interval(of_fidelity, len(true)),
        "edge F1": bootstrap.interval(of_edges, len(true)),
    }


def _f1(found: Bool[np.ndarray, "b h w"], wanted: Bool[np.ndarray, "b h w"]) -> float:
    return float(2 * (found & wanted).sum() / max(found.sum() + wanted.sum(), 1))


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
