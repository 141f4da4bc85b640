"""Training steps of the published trunks on random records; suite `train` of experiments.benchmark.

First the step alone, one batch on the device: masking, trunk, heads, optimizer. Real target tokens
are those of the batch's masks. Model operations are those of `train.flops`: no recomputation.
Beside each case stand a product and a plain step of the same shape, measured in the same run
(`experiments.benchmarking.yardsticks`). On accelerators the same step then runs in `train.loop`,
fed from token shards: `loop_samples_per_s` is what the log of a run says. All cases compile beside
each other before the first is timed.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import ml_collections

from configs import fourm
from experiments.benchmarking import trace, yardsticks
from experiments.benchmarking import turns as turns_lib
from fourm_jax.data.sources import fake
from fourm_jax.data.storage import shard_writer
from fourm_jax.modalities import registry
from fourm_jax.models import sizes
from fourm_jax.parallel import distributed
from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.train import checkpoint, flops, run_config
from fourm_jax.train import loop as loop_lib
from fourm_jax.train import program as program_lib
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

NUM_RECORDS = 1024  # random ones, repeated; grain shuffles few slowly: 430 µs a record of 64
NUM_STEPS, LOG_EVERY = 60, 20  # in the loop; the last log point counts
NUM_WORKERS = 10  # most processes that read its batches
GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One row.

    Attributes:
      mix, size: as in configs/fourm.py, and the small sizes.
      batch_size: samples per step.
      on_cpu: whether a CPU can do it; in float32 there, and without the loop.
      changes: config keys that differ from configs/fourm.py.
    """

    mix: str
    size: str
    batch_size: int
    on_cpu: bool = False
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


CASES = {
    "tiny_mod7": Case(
        mix="mod7",
        size="tiny",
        batch_size=16,
        on_cpu=True,
        changes={"model.remat": "none"},
    ),
    "base_mod21_b2": Case(mix="mod21", size="base", batch_size=2, on_cpu=True),
    "base_mod21": Case(mix="mod21", size="base", batch_size=256),
    "large_mod21": Case(mix="mod21", size="large", batch_size=128),
    "xlarge_mod21": Case(
        mix="mod21",
        size="xlarge",
        batch_size=64,
        changes={"model.remat": "names", "model.scan_unroll": 0},
    ),
}


def run(
    cases: Sequence[str] = (),
    profile: bool = False,
    changes: Mapping[str, Any] | None = None,
    turns: str = "",
    loop: bool = True,
) -> Iterator[dict]:
    """Yield one row per case.

    Args:
      changes: config keys that differ in all of them.
      loop: whether they also run in the training loop, where there is an accelerator.
      turns: see `experiments.benchmarking.turns.take`.
    """
    on_cpu = jax.default_backend() == "cpu"
    names = cases or [name for name, case in CASES.items() if case.on_cpu or not on_cpu]
    for name in names:
        if name not in CASES:
            raise ValueError(errors.unknown_value("case", name, CASES))
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor() as pool:
        steps = {}
        for name in names:
            all_changes = {**CASES[name].changes, **(changes or {})}
            case = dataclasses.replace(CASES[name], changes=all_changes)
            steps[name] = Step(case, pathlib.Path(folder, case.mix), pool)
        concurrent.futures.wait([job for one in steps.values() for job in one.compiling])
        for name, one in steps.items():
            row = {"suite": "train", "case": name, "batch": one.case.batch_size}
            turns_lib.take(turns)
            try:
                row |= one.measure(profile=profile, loop=loop and not on_cpu)
            except jax.errors.JaxRuntimeError as error:
                row["out_of_memory"] = check_memory(error)
            yield row | ({"changes": dict(changes)} if changes else {})


class Step:
    """The training step of a case, which compiles in a thread from the start, as its state does."""

    def __init__(self, case: Case, shards: pathlib.Path, pool: concurrent.futures.Executor) -> None:
        """Build it; its records are in `shards`, and are written if they are not."""
        self.case, self.config = case, make_config(case, shards)
        write_records(self.config, shards)
        self.run = run_config.build(self.config)
        self.mesh = mesh_lib.make_mesh(devices=jax.devices()[:1], **self.run.mesh)
        self.batch = distributed.put_batch(next(self.run.batches(0, ahead=False)), self.mesh)
        self.program = program_lib.make(self.config, self.run.task, self.mesh, self.batch)
        root = self.program.root
        with jax.set_mesh(self.mesh):
            train_step: Any = self.program.train_step  # jitted
            lowered = train_step.lower(self.program.abstract, self.batch, root)
            init: Any = self.program.init
            self.init = pool.submit(_compile, init.lower(self.batch, root))
        self.compiled = pool.submit(_compile, lowered)
        self.plain = pool.submit(_plain_step(case, self.config).compile, case.batch_size)
        self.compiling: list[concurrent.futures.Future[Any]] = [
            self.init,
            self.compiled,
            self.plain,
        ]

    def measure(
        self, *, profile: bool = False, rounds: int = 7, loop: bool = False
    ) -> dict[str, Any]:
        """Time the step, then its yardsticks, then the loop around it."""
        compiled, compile_s = self.compiled.result()
        lines: list[str] = []
        with jax.set_mesh(self.mesh):
            state = [self.init.result()[0](self.batch, self.program.root)]

            def step() -> jax.Array:
                state[0], loss = compiled(state[0], self.batch, self.program.root)
                return loss

            seconds = yardsticks.median_seconds(step, rounds=rounds)
            sums = state[0].metrics["target_tokens_per_sample"]
            tokens = float(sums[0] / sums[1]) * self.case.batch_size
            if profile:
                lines = trace.record(step, _trace_folder(), calls=3)
            state.clear()
        for line in lines:
            print(line, flush=True)
        row = _row(self.case, self.config, self.run.task, seconds, tokens)
        row |= {"compile_s": round(compile_s, 1), "peak_gib": round(_peak_bytes(compiled) / GIB, 2)}
        row |= yardsticks.product()
        try:
            row["plain_step_ms"] = round(1e3 * self.plain.result().seconds(), 1)
        except jax.errors.JaxRuntimeError as error:  # it saves everything: too large for some cases
            check_memory(error)
        return row | run_loop(self.config) if loop else row


def run_loop(config: ml_collections.ConfigDict) -> dict[str, float]:
    """Train as a run does; the rate of the last log point. The state is not written at the end."""
    no_save = mock.patch.object(checkpoint.Checkpointer, "save")
    with tempfile.TemporaryDirectory() as workdir, no_save:
        one = jax.devices()[:1]
        metrics = loop_lib.train(config, workdir, show_progress=False, devices=one).metrics
    row = {"loop_samples_per_s": round(metrics["samples_per_second"], 2)}
    row["loop_waiting_share"] = round(metrics["waiting_share"], 4)
    return row | ({"loop_mfu": round(metrics["mfu"], 4)} if "mfu" in metrics else {})


def make_config(case: Case, shards: pathlib.Path) -> ml_collections.ConfigDict:
    """configs/fourm.py with one data set, in `shards`, and the batch size of the case."""
    named = case.size if case.size in ("base", "large", "xlarge") else "base"
    config = fourm.get_config(f"mix={case.mix},size={named}").unlock()
    config.batch_size = case.batch_size
    config.num_steps, config.log_every, config.checkpoint_every = NUM_STEPS, LOG_EVERY, 0
    config.optimizer.warmup_steps = 5
    config.model.update(sizes.get(case.size))
    config.mesh = {"data": 1, "fsdp": 1, "tensor": 1}
    if jax.default_backend() == "cpu":
        config.dtype = "float32"
    else:  # one process reads about 400 records a second, pictures included
        config.num_workers = max(min((os.cpu_count() or 1) - 4, NUM_WORKERS), 0)
    config.masking.maskings_per_record = 1
    (part, *_) = config.data
    part.arguments.directory = str(shards)
    part.fields = {name: name for name in part.fields}
    config.data = (part,)
    return config_lib.override(config.lock(), case.changes)


def write_records(config: ml_collections.ConfigDict, shards: pathlib.Path) -> None:
    """Write random records, unless they are there."""
    (part,) = config.data
    own = {n: v for n, v in config.modalities.overrides.to_dict().items() if n in part.fields}
    specs = registry.resolve("fourm", tuple(part.fields), own)
    source = fake.FakeSource(specs, NUM_RECORDS, seed=0, split="train")
    records = map(source.__getitem__, range(NUM_RECORDS))
    shard_writer.write_split(shards, "train", {}, 1, lambda shard: records)


def _compile(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, float]:
    start = time.perf_counter()
    return lowered.compile(), time.perf_counter() - start


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


def _plain_step(case: Case, config: ml_collections.ConfigDict) -> yardsticks.PlainStep:
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    num_tokens = config.masking.num_inputs
    return yardsticks.PlainStep(**sizes.get(case.size), num_tokens=num_tokens, dtype=dtype)


def check_memory(error: jax.errors.JaxRuntimeError) -> bool:
    """Return True where a device had too little memory; raise any other error again."""
    if "RESOURCE_EXHAUSTED" not in str(error):
        raise error
    return True


def _peak_bytes(compiled) -> int:
    """What the step holds at once, by the compiler's plan."""
    plan = compiled.memory_analysis()
    kept = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return kept + plan.temp_size_in_bytes


def _trace_folder() -> pathlib.Path:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="trace_"))
    print(f"trace: {folder}", flush=True)
    return folder
