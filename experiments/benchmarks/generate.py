"""Seconds per generation with random weights; suite `generate` of experiments.benchmark.

Models of 4M-7 at published sizes draw from a picture: one grid by MaskGIT in 8 passes, alone, in
batches and with guidance; a caption of 64 tokens; all seven modalities in a chain; all grids in one
parallel pass. Tokens are drawn from a nucleus of 0.9. "base" runs where there is an accelerator.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import trunk
from fourm_jax.convert import fourm
from fourm_jax.generate import chain, schedule
from fourm_jax.generate import state as states
from fourm_jax.generate.grids import Sampling
from fourm_jax.generate.schedule import Target
from fourm_jax.modalities import registry
from fourm_jax.models import sizes
from fourm_jax.models.fourm import FourM

PICTURE, GRID, TEXT = "rgb@224", "tok_depth@224", "caption"
NUM_PASSES, NUM_WORDS, NUCLEUS, GUIDANCE = 8, 64, 0.9, 2.0
NUM_ROUNDS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the suite: what is generated from how many pictures."""

    name: str
    targets: tuple[str, ...]
    batch: int = 1
    guidance: float = 1.0
    max_new: Mapping[str, int] = dataclasses.field(default_factory=dict)


def cases() -> Iterator[Case]:
    """What one size is measured on."""
    on_accelerator = jax.default_backend() != "cpu"
    for batch in (1, 4, 32) if on_accelerator else (1, 4):
        yield Case(name=f"depth_maskgit8_b{batch}", targets=(GRID,), batch=batch)
    yield Case(name="depth_maskgit8_cfg_b1", targets=(GRID,), guidance=GUIDANCE)
    for batch in (1, 32) if on_accelerator else (1,):
        words = {TEXT: NUM_WORDS}
        yield Case(name=f"caption64_b{batch}", targets=(TEXT,), batch=batch, max_new=words)
    yield Case(name="all_b1", targets=registry.MOD7_OUT)


def run() -> Iterator[dict]:
    """Yield one row per size and case, beside a float32 product of the same run as yardstick."""
    for size in ("tiny",) if jax.default_backend() == "cpu" else ("tiny", "base"):
        model, params = random_trunk(size)
        for case in cases():
            yield {**measure(size, model, params, case), "sgemm_gflops": round(trunk.sgemm(), 1)}


def random_trunk(size: str) -> tuple[FourM, Any]:
    """4M-7 with random weights; bfloat16 arithmetic on an accelerator."""
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    model = FourM(
        modalities=registry.resolve("fourm", registry.MOD7_IN),
        inputs=registry.MOD7_IN,
        outputs=registry.MOD7_OUT,
        dtype=dtype,
        **sizes.get(size),
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), fourm.example_tokens(model))["params"]
    rng = np.random.default_rng(0)

    def drawn(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(rng.normal(scale=0.02, size=leaf.shape), leaf.dtype)

    return model, jax.tree.map(drawn, shapes)


def measure(size: str, model: FourM, params: Any, case: Case) -> dict:
    """Compile one case, then time it; the number of tokens is that of one sample."""
    specs = {spec.name: spec for spec in model.modalities}
    pixels = np.random.default_rng(0).integers(0, 256, (case.batch, 224, 224, 3), dtype=np.uint8)
    plan = [
        Target(name=name, scheme="autoregressive", guidance=case.guidance)
        if specs[name].kind == "sequence"
        else Target(
            name=name,
            scheme="maskgit",
            num_tokens=specs[name].num_tokens,
            num_steps=NUM_PASSES,
            tokens="cosine",
            guidance=case.guidance,
        )
        for name in case.targets
    ]
    steps = schedule.build_chained_schedule([PICTURE], plan)
    keys = chain.row_keys(0, np.arange(case.batch))

    def generate() -> states.State:
        state = states.create({PICTURE: {"pixels": pixels}}, case.targets, specs=model.modalities)
        done = chain.run(
            model,
            params,
            state,
            steps,
            keys=keys,
            sampling=Sampling(top_p=NUCLEUS),
            max_new=case.max_new,
        )
        return jax.block_until_ready(done)

    done, compile_s, seconds = timed(generate)
    known = {name: float(done.known[name].sum(axis=1).mean()) for name in case.targets}
    return {
        "suite": "generate",
        "case": f"{size}_{case.name}",
        "seconds": round(seconds, 3),
        "tokens": round(sum(known.values()), 1),
        "batch": case.batch,
        "dtype": jnp.dtype(model.dtype).name,
        "device": jax.devices()[0].device_kind,
        "compile_s": round(compile_s, 1),
    }


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, seconds of the first call beyond a later one, median seconds of later ones."""
    seconds = []
    for _ in range(1 + NUM_ROUNDS):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[1:])
    return result, seconds[0] - median, median
