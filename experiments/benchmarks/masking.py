"""Time of the compiled masking per sample, and how full it leaves the slots, at published sizes.

Samples have all modalities and texts of realistic lengths (`fake.LENGTHS`). Beside it the time of
one sort of 2,300 packed int32 keys per sample, which is what choosing grid cells by sorting noise
would cost alone.
"""

import functools
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import mixtures
from fourm_jax.data.sources import fake
from fourm_jax.masking import mixture as mixture_lib
from fourm_jax.masking import sample as masking
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec

BATCH_SIZE = 64
NUM_CALLS = 30
CASES = {
    "mod7": (registry.MOD7_IN, registry.MOD7_OUT, mixtures.mod7_rgb2all, 128),
    "mod21": (registry.MOD21_IN, registry.MOD21_OUT, mixtures.mod21, 256),
}


def run() -> list[dict]:
    """Return one row per case and budget."""
    keys = jax.random.bits(jax.random.key(0), (BATCH_SIZE, 2300)).astype(jnp.int32)
    sort = jax.jit(functools.partial(jnp.sort, axis=1))
    rows = []
    for case in CASES:
        for budget in masking.BUDGETS:
            row = {"suite": "masking", "case": case, "budget": budget, **measure(case, budget)}
            row["sort_ms_per_sample"] = round(_milliseconds(sort, keys)[0], 4)
            rows.append({**row, "load_average": round(os.getloadavg()[0], 2)})
    return rows


def measure(case: str, budget: str) -> dict:
    """Compile one case, then time it and count its valid slots."""
    inputs, outputs, make_mixture, slots = CASES[case]
    specs = registry.resolve("fourm", inputs)
    mixture = mixture_lib.make_mixture(specs, [make_mixture()])
    sample = functools.partial(
        masking.sample_tokens,
        specs=specs,
        inputs=inputs,
        outputs=outputs,
        num_inputs=slots,
        num_targets=slots,
        budget=budget,
    )
    start = time.perf_counter()
    compiled = jax.jit(sample).lower(jax.random.key(0), make_batch(specs, 0), mixture).compile()
    compile_s = time.perf_counter() - start
    full = []
    for seed in range(16):
        tokens = compiled(jax.random.key(seed), make_batch(specs, seed), mixture)
        full.append((tokens.inputs.valid.mean(), tokens.targets.valid.mean()))
    median, best = _milliseconds(compiled, jax.random.key(0), make_batch(specs, 0), mixture)
    input_fill, target_fill = np.mean(full, axis=0)
    return {
        "ms_per_sample": round(median, 4),
        "ms_per_sample_best": round(best, 4),
        "input_fill": round(float(input_fill), 4),
        "target_fill": round(float(target_fill), 4),
        "compile_s": round(compile_s, 2),
    }


def make_batch(specs: Sequence[ModalitySpec], seed: int) -> dict[str, Any]:
    """A batch of random tokens; pixels and vectors are empty, masking never reads them."""
    rng = np.random.default_rng(seed)
    present = np.ones(BATCH_SIZE, bool)
    batch: dict[str, Any] = {"mixture": np.zeros(BATCH_SIZE, np.int32)}
    for spec in specs:
        shape = (BATCH_SIZE, spec.max_tokens)
        if spec.kind == "pixels":
            batch[spec.name] = {"pixels": np.zeros((BATCH_SIZE, 1, 1, 3)), "present": present}
        elif spec.name in fake.LENGTHS:
            few, many, step = fake.LENGTHS[spec.name]
            length = rng.choice(np.arange(few, many + 1, step), BATCH_SIZE)
            entry: dict[str, np.ndarray] = {
                "length": np.minimum(length, spec.max_tokens).astype(np.int32)
            }
            if spec.is_token:
                entry["ids"] = rng.integers(204, spec.vocab_size, shape).astype(np.uint16)
                entry["chunk"] = np.tile(
                    np.arange(spec.max_tokens) // (1 + spec.chunked), (shape[0], 1)
                )
            else:
                entry["embeddings"] = np.zeros((*shape, 1), np.float32)
            batch[spec.name] = entry
        else:
            ids = rng.integers(0, spec.vocab_size, shape).astype(np.uint16)
            batch[spec.name] = {"ids": ids, "present": present}
    return jax.device_put(batch)


def _milliseconds(function, *arguments) -> tuple[float, float]:
    """Median and best time of a call, per sample."""
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(NUM_CALLS):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - start)
    scale = 1e3 / BATCH_SIZE
    return statistics.median(seconds) * scale, min(seconds) * scale
