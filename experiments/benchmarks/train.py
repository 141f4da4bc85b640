"""Training steps of the published trunks on random records; suite `train` of experiments.benchmark.

One batch stays on the device, so this is the step alone: masking, trunk, heads, optimizer. Real
target tokens are those of the batch's masks. Model operations are those of `train.flops`: no
recomputation. Beside each case stand a product and a plain step of the same shape, measured in the
same run (`experiments.benchmarking.yardsticks`).
"""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from configs import fourm
from experiments.benchmarking import trace, yardsticks
from fourm_jax.models import sizes
from fourm_jax.parallel import distributed
from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.train import flops, loop, run_config
from fourm_jax.utils import errors

NUM_RECORDS = 64  # random ones, repeated in the batch
GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One row.

    Attributes:
      mix, size: as in configs/fourm.py, and the small sizes.
      batch_size: samples per step.
      on_cpu: whether a CPU can do it; in float32 there.
      changes: config keys that differ from configs/fourm.py.
    """

    mix: str
    size: str
    batch_size: int
    on_cpu: bool = False
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


CASES = {
    "tiny_mod7": Case(
        mix="mod7", size="tiny", batch_size=16, on_cpu=True, changes={"model.remat": "none"}
    ),
    "base_mod21_b2": Case(mix="mod21", size="base", batch_size=2, on_cpu=True),
    "base_mod21": Case(mix="mod21", size="base", batch_size=128),
    "base_mod21_b256": Case(mix="mod21", size="base", batch_size=256),
    "large_mod21": Case(mix="mod21", size="large", batch_size=64),
    "xlarge_mod21": Case(mix="mod21", size="xlarge", batch_size=32),
}


def run(cases: Sequence[str] = (), profile: bool = False) -> Iterator[dict]:
    """Yield one row per case."""
    on_cpu = jax.default_backend() == "cpu"
    for name in cases or [n for n, case in CASES.items() if case.on_cpu or not on_cpu]:
        if name not in CASES:
            raise ValueError(errors.unknown_value("case", name, CASES))
        yield {"suite": "train", "case": name, **measure(CASES[name], profile=profile)}


def measure(case: Case, *, profile: bool = False, rounds: int = 7) -> dict[str, Any]:
    """Compile the step of a case, then time it beside its yardsticks."""
    config = make_config(case)
    run = run_config.build(config)
    mesh = mesh_lib.make_mesh(devices=None, **run.mesh)
    batch = distributed.put_batch(next(run.batches(0)), mesh)
    program = loop.make_program(config, run, mesh, batch)
    with jax.set_mesh(mesh):
        start = time.perf_counter()
        train_step: Any = program.train_step  # jitted
        compiled = train_step.lower(program.abstract, batch).compile()
        compile_s = time.perf_counter() - start
        state = [program.init(batch)]

        def step() -> jax.Array:
            state[0], loss = compiled(state[0], batch)
            return loss

        seconds = yardsticks.median_seconds(step, rounds=rounds)
        sums = state[0].metrics["target_tokens_per_sample"]
        tokens = float(sums[0] / sums[1]) * case.batch_size
        lines = trace.record(step, _trace_folder(), calls=3) if profile else []
        state.clear()
    for line in lines:
        print(line, flush=True)
    return _row(case, config, run.task, seconds, tokens) | {
        "compile_s": round(compile_s, 1),
        "peak_gib": round(_peak_bytes(compiled) / GIB, 2),
        **_yardsticks(case, config),
    }


def make_config(case: Case) -> ml_collections.ConfigDict:
    """configs/fourm.py with random records and the batch size of the case."""
    named = case.size if case.size in ("base", "large", "xlarge") else "base"
    config = fourm.get_config(f"mix={case.mix},size={named}").unlock()
    config.batch_size = case.batch_size
    config.model.update(sizes.get(case.size))
    config.mesh = {"data": 1, "fsdp": 1, "tensor": 1}
    if jax.default_backend() == "cpu":
        config.dtype = "float32"
    config.masking.maskings_per_record = 1
    (part, *_) = config.data
    part.source = "fake"
    part.arguments = ml_collections.ConfigDict(
        {
            "family": "fourm",
            "names": tuple(part.fields),
            "num_records": NUM_RECORDS,
            "overrides": config.modalities.overrides,
        }
    )
    part.fields = {name: name for name in part.fields}
    config.data = (part,)
    for key, value in case.changes.items():
        config.update_from_flattened_dict({key: value})
    return config.lock()


def _row(
    case: Case, config: ml_collections.ConfigDict, task: Any, seconds: float, tokens: float
) -> dict[str, Any]:
    device, rate = jax.devices()[0], case.batch_size / seconds
    peak = flops.peak_flops(device)
    row = {
        "batch": case.batch_size,
        "device": device.device_kind,
        "dtype": config.dtype,
        "ms_per_step": round(1e3 * seconds, 1),
        "samples_per_s": round(rate, 2),
        "target_tokens_per_s": round(tokens / seconds, 1),
        "model_gflops": round(task.flops_per_sample * rate / 1e9, 1),
    }
    return row | ({"mfu": round(task.flops_per_sample * rate / peak, 4)} if peak else {})


def _yardsticks(case: Case, config) -> dict[str, float]:
    on_cpu = jax.default_backend() == "cpu"
    name, size = ("sgemm_gflops", 2048) if on_cpu else ("product_gflops", 8192)
    dtype = jnp.float32 if on_cpu else jnp.bfloat16
    plain = yardsticks.PlainStep(
        **sizes.get(case.size), num_tokens=config.masking.num_inputs, dtype=dtype
    )
    row = {name: round(yardsticks.product_gflops(dtype, size), 1)}
    try:
        row["plain_step_ms"] = round(1e3 * plain.seconds(case.batch_size), 1)
    except jax.errors.JaxRuntimeError as error:  # it saves everything: too large for some cases
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
    return row


def _peak_bytes(compiled) -> int:
    """What the step holds at once, by the compiler's plan."""
    plan = compiled.memory_analysis()
    kept = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return kept + plan.temp_size_in_bytes


def _trace_folder() -> pathlib.Path:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="trace_"))
    print(f"trace: {folder}", flush=True)
    return folder
