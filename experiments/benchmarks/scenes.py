"""Rendering speed of the embedded scenes: `python -m experiments.benchmarks.scenes`.

Prints one JSON line: scenes per second with all signals at 32, 48 and 64 px after compilation
(best of five batches of 256), the seconds of compilation and the load of the machine.
"""

import json
import os
import time

import jax
import numpy as np

from fourm_jax.data import scenes

BATCH = 256


def measure(image_size: int) -> dict[str, float]:
    """Compile for one image size, then time five batches of fresh seeds."""
    start = time.perf_counter()
    scenes.render(np.arange(scenes.BLOCK), image_size)
    compilation = time.perf_counter() - start
    seconds = []
    for batch in range(5):
        start = time.perf_counter()
        scenes.render(np.arange(batch * BATCH, (batch + 1) * BATCH), image_size)
        seconds.append(time.perf_counter() - start)
    return {"scenes_per_s": round(BATCH / min(seconds), 1), "compile_s": round(compilation, 2)}


def main() -> None:
    """Print the figures of every size."""
    sizes = {f"{size}px": measure(size) for size in (32, 48, 64)}
    device = jax.devices()[0].device_kind
    load = round(os.getloadavg()[0], 2)
    print(json.dumps({"benchmark": "scenes", **sizes, "device": device, "load_average": load}))


if __name__ == "__main__":
    main()
