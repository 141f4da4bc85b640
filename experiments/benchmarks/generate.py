"""Seconds per generation with random weights; suite `generate` of experiments.benchmark.

Models of 4M-7 at published sizes draw from a picture: one grid by MaskGIT in 8 passes, alone, in
batches and with guidance; a caption of 64 tokens; all seven modalities in a chain; all grids in one
parallel pass, of 4M-7 and of 4M-21, beside a call with an encoder pass of its own for each of them,
and the grids of 4M-7 in a chain, in 8 passes and in one pass each. Tokens are drawn from a nucleus
of 0.9. "base" runs where there is an accelerator. Model operations are those of
`experiments.benchmarking.operations`. Memory is what the process has held so far: it says most of a
case that runs alone.
"""

import dataclasses
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarking import operations, yardsticks
from experiments.benchmarking import turns as turns_lib
from fourm_jax.convert import fourm
from fourm_jax.generate import ahead, chain, parallel, schedule
from fourm_jax.generate import state as states
from fourm_jax.generate import trunk as generate_trunk
from fourm_jax.generate.grids import Sampling
from fourm_jax.generate.schedule import Target
from fourm_jax.modalities import registry
from fourm_jax.models import sizes
from fourm_jax.models.fourm import FourM
from fourm_jax.train import flops
from fourm_jax.utils import errors

PICTURE, GRID, TEXT = "rgb@224", "tok_depth@224", "caption"
NUM_PASSES, NUM_WORDS, NUCLEUS, GUIDANCE = 8, 64, 0.9, 2.0
NUM_ROUNDS, MOST_ROUNDS, ENOUGH = 3, 15, 2.0  # seconds: no more rounds than for these
MIXES = {
    "mod7": (registry.MOD7_IN, registry.MOD7_OUT),
    "mod21": (registry.MOD21_IN, registry.MOD21_OUT),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the suite: what is generated from how many pictures."""

    name: str
    targets: tuple[str, ...]
    mix: str = "mod7"
    batch: int = 1
    guidance: float = 1.0
    num_passes: int = NUM_PASSES
    parallel: bool = False
    max_new: Mapping[str, int] = dataclasses.field(default_factory=dict)


def all_cases(on_accelerator: bool) -> Iterator[Case]:
    """What one size is measured on."""
    for batch in (1, 4, 32) if on_accelerator else (1, 4):
        yield Case(name=f"depth_maskgit8_b{batch}", targets=(GRID,), batch=batch)
    yield Case(name="depth_maskgit8_cfg_b1", targets=(GRID,), guidance=GUIDANCE)
    for batch in (1, 32) if on_accelerator else (1,):
        words = {TEXT: NUM_WORDS}
        yield Case(name=f"caption64_b{batch}", targets=(TEXT,), batch=batch, max_new=words)
    for batch in (1, 4, 32) if on_accelerator else (1,):
        yield Case(name=f"all_b{batch}", targets=registry.MOD7_OUT, batch=batch)
    for batch, count in itertools.product((1, 4), (NUM_PASSES, 1)):
        name = f"chain5_maskgit{count}_b{batch}"
        yield Case(name=name, targets=grids(registry.MOD7_OUT), batch=batch, num_passes=count)
    for mix, batch in itertools.product(MIXES, (1, 4)):
        dense = grids(MIXES[mix][1])
        name = f"predict{len(dense)}_b{batch}"
        yield Case(name=name, targets=dense, mix=mix, batch=batch, parallel=True)


def grids(names: Sequence[str]) -> tuple[str, ...]:
    """Targets whose tokens can be predicted in one pass."""
    return tuple(name for name in names if name.startswith("tok_"))


def run(cases: Sequence[str] = (), turns: str = "") -> Iterator[dict]:
    """Yield one row per size and case, beside a float32 product of the same run as yardstick.

    Args:
      cases: names of rows; default: all that fit this machine.
      turns: see `experiments.benchmarking.turns.take`; then all cases compile before one is timed.

    Raises:
      ValueError: an unknown case.
    """
    on_accelerator = jax.default_backend() != "cpu"
    rows = {
        f"{size}_{case.name}": (size, case)
        for size in (("tiny", "base") if on_accelerator else ("tiny",))
        for case in all_cases(on_accelerator)
    }
    for name in cases:
        if name not in rows:
            raise ValueError(errors.unknown_value("case", name, rows))
    prepared = (prepare(name, *rows[name]) for name in cases or rows)
    for row, measure in list(prepared) if turns else prepared:
        turns_lib.take(turns)
        yield row | measure() | yardsticks.peak_memory() | yardsticks.product()


def prepare(name: str, size: str, case: Case) -> tuple[dict, Callable[[], dict]]:
    """What is known of a row, and a function that measures the rest; it has run once."""
    model, params = random_trunk(size, case.mix)
    row = {
        "suite": "generate",
        "case": name,
        "batch": case.batch,
        "dtype": jnp.dtype(model.dtype).name,
        "device": jax.devices()[0].device_kind,
    }
    return row, (predict if case.parallel else generate)(model, params, case)


@functools.cache
def random_trunk(size: str, mix: str = "mod7") -> tuple[FourM, Any]:
    """A trunk for this machine, with random weights."""
    model = trunk(size, mix, platform=jax.default_backend())
    return model, random_params(model)


def trunk(size: str, mix: str, *, platform: str) -> FourM:
    """A trunk; on an accelerator with bfloat16 arithmetic and the loop over blocks that a
    `Generator` has there."""
    inputs, outputs = MIXES[mix]
    on_cpu = platform == "cpu"
    model = FourM(
        modalities=registry.resolve("fourm", inputs),
        inputs=inputs,
        outputs=outputs,
        dtype=jnp.float32 if on_cpu else jnp.bfloat16,
        scan_unroll=1 if on_cpu else 0,
        **sizes.get(size),
    )
    return generate_trunk.looped_on_tpu(model, platform)


def shapes(model: FourM) -> Any:
    """Of the parameters of a trunk."""
    return jax.eval_shape(model.init, jax.random.key(0), fourm.example_tokens(model))["params"]


def random_params(model: FourM) -> Any:
    """Parameters of a trunk, N(0, 0.02)."""
    rng = np.random.default_rng(0)

    def drawn(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(rng.normal(scale=0.02, size=leaf.shape), leaf.dtype)

    return jax.tree.map(drawn, shapes(model))


def generate(model: FourM, params: Any, case: Case) -> Callable[[], dict]:
    """Run a chain once; returns how to time it. The number of tokens is that of one sample."""
    steps = schedule.build_chained_schedule([PICTURE], plan(model, case))
    keys = chain.row_keys(0, np.arange(case.batch))
    pixels, programs = pictures(case.batch), ahead.Programs()
    # As a `Generator` keeps them.
    params = generate_trunk.with_ready_kernels(model, params, case.batch)

    def run_chain() -> states.State:
        return chain.run(
            model,
            params,
            start(model, pixels, case.targets),
            steps,
            keys=keys,
            sampling=Sampling(top_p=NUCLEUS),
            max_new=case.max_new,
            programs=programs,
        )

    first, done = timed(run_chain)
    lengths = {name: round(float(done.known[name].sum(1).mean())) for name in case.targets}
    needed = operations.of_chain(model, {PICTURE: num_tokens(model, PICTURE)}, steps, lengths)
    return lambda: _row(case, first, median(run_chain), sum(lengths.values()), needed)


def predict(model: FourM, params: Any, case: Case) -> Callable[[], dict]:
    """Predict in parallel and one by one; returns how to time both."""
    pixels = pictures(case.batch)
    # As a `Generator` keeps them.
    params = generate_trunk.with_ready_kernels(model, params, case.batch)

    def together() -> Any:
        state = start(model, pixels, case.targets)
        return parallel.predict(model, params, state, case.targets)

    def one_by_one() -> Any:
        return [
            parallel.predict(model, params, start(model, pixels, [name]), [name])
            for name in case.targets
        ]

    first, _ = timed(together)
    timed(one_by_one)
    lengths = {name: num_tokens(model, name) for name in case.targets}
    needed = operations.of_prediction(model, {PICTURE: num_tokens(model, PICTURE)}, lengths)

    def measure() -> dict:
        row = _row(case, first, median(together), sum(lengths.values()), needed)
        return row | {"one_by_one_seconds": round(median(one_by_one), 4)}

    return measure


def _row(case: Case, first: float, seconds: float, tokens: int, needed: float) -> dict:
    """Figures of calls of so many seconds: tokens and operations `needed` are of one sample.

    The `first` call has compiled as well.
    """
    rate, peak = case.batch / seconds, flops.peak_flops(jax.devices()[0])
    row = {
        "seconds": round(seconds, 4),
        "samples_per_s": round(rate, 2),
        "tokens": tokens,
        "tokens_per_s": round(rate * tokens, 1),
        "model_gflops": round(rate * needed / 1e9, 1),
        "compile_s": round(first - seconds, 1),
    }
    return row | ({"mfu": round(rate * needed / peak, 4)} if peak else {})


def num_tokens(model: FourM, name: str) -> int:
    """Tokens of a grid, or patches of a picture."""
    (count,) = (spec.num_tokens for spec in model.modalities if spec.name == name)
    return count


def pictures(batch: int) -> np.ndarray:
    """Random ones."""
    return np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)


def start(model: FourM, pixels: np.ndarray, targets: Sequence[str]) -> states.State:
    """Pictures of the host, and unknown targets."""
    return states.create({PICTURE: {"pixels": pixels}}, targets, specs=model.modalities)


def plan(model: FourM, case: Case) -> list[Target]:
    """MaskGIT with cosine counts for grids, token by token for texts."""
    specs = {spec.name: spec for spec in model.modalities}
    return [
        Target(name=name, scheme="autoregressive", guidance=case.guidance)
        if specs[name].kind == "sequence"
        else Target(
            name=name,
            scheme="maskgit",
            num_tokens=num_tokens(model, name),
            num_steps=case.num_passes,
            tokens="cosine",
            guidance=case.guidance,
        )
        for name in case.targets
    ]


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and its result."""
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    return time.perf_counter() - start, result


def median(function: Callable[[], Any]) -> float:
    """Median seconds of calls, more of them where they are short."""
    seconds: list[float] = []
    while len(seconds) < NUM_ROUNDS or (sum(seconds) < ENOUGH and len(seconds) < MOST_ROUNDS):
        seconds.append(timed(function)[0])
    return statistics.median(seconds)
