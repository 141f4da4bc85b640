"""Scenes per second with all signals after compilation: suite `scenes`."""

import statistics
import time

import numpy as np

from fourm_jax.scenes import world

BATCH = 256


def run() -> list[dict]:
    """Return one row per image size: the median of five batches of 256 fresh scenes."""
    return [measure(size) for size in (32, 48, 64)]


def measure(image_size: int) -> dict:
    """Compile for one image size, then time five batches."""
    start = time.perf_counter()
    world.render(np.arange(world.BLOCK), image_size)
    compilation = time.perf_counter() - start
    seconds = []
    for batch in range(5):
        start = time.perf_counter()
        world.render(np.arange(batch * BATCH, (batch + 1) * BATCH), image_size)
        seconds.append(time.perf_counter() - start)
    return {
        "suite": "scenes",
        "case": f"{image_size}px",
        "scenes_per_s": round(BATCH / statistics.median(seconds), 1),
        "compile_s": round(compilation, 2),
    }
