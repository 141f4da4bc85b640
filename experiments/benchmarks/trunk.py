"""Training step of the scenes' trunks on random tokens; suite `trunk` of experiments.benchmark."""

import statistics
import time

import jax
import jax.numpy as jnp

from configs import datasets, scenes
from configs.data import scenes as scenes_data
from fourm_jax.parallel import distributed
from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.train import program as program_lib
from fourm_jax.train import run_config

NUM_ROUNDS, STEPS_PER_ROUND = 5, 8


def run() -> list[dict]:
    """Return one row per size, beside a float32 product of the same run as yardstick."""
    return [{**measure(size), "sgemm_gflops": round(sgemm(), 1)} for size in scenes.SIZES]


def measure(size: str) -> dict:
    """Compile the step of one size, then time it; model operations as `train.flops` counts them."""
    mixture = scenes_data.mixture()
    fake = datasets.fake_tokens("scenes", scenes.INPUTS, mixture, family="scenes", num_records=64)
    config = scenes.of_size(size, fake)
    run = run_config.build(config)
    mesh = mesh_lib.make_mesh(devices=None, **run.mesh)
    batch = distributed.put_batch(next(run.batches(0, ahead=False)), mesh)
    program = program_lib.make(config, run.task, mesh, batch)
    root = program.root
    seconds = []
    with jax.set_mesh(mesh):
        start = time.perf_counter()
        state, loss = program.train_step(program.init(batch, root), batch, root)
        loss.block_until_ready()
        compilation = time.perf_counter() - start
        for _ in range(NUM_ROUNDS):
            start = time.perf_counter()
            for _ in range(STEPS_PER_ROUND):
                state, loss = program.train_step(state, batch, root)
            loss.block_until_ready()
            seconds.append((time.perf_counter() - start) / STEPS_PER_ROUND)
    rate = config.batch_size / statistics.median(seconds)
    return {
        "suite": "trunk",
        "case": size,
        "ms_per_step": round(1e3 * statistics.median(seconds), 1),
        "samples_per_s": round(rate, 1),
        "model_gflops": round(run.task.flops_per_sample * rate / 1e9, 1),
        "compile_s": round(compilation, 1),
    }


def sgemm(size: int = 1024) -> float:
    """10^9 operations per second of a float32 product of two square matrices, median of 9."""
    a = jnp.ones((size, size))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    seconds = []
    for _ in range(9):
        start = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds) / 1e9
