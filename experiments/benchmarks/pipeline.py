"""Speed of the host pipeline, token shards to padded batches, at the sizes of the 21-modality mix.

`mod21_tokens` reads the 17 token modalities and T5 embeddings (bfloat16, 10-40 vectors of 4,096);
`mod21_pixels` also 224 × 224 pictures stored as uint8. Texts have realistic lengths. Every case
runs in a process of its own and reads its records several times, shuffled.
"""

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from PIL import Image

from fourm_jax.data import datasets, pipeline
from fourm_jax.data.sources import fake, token_shards
from fourm_jax.data.storage import shard_writer
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import extras

FAMILY = "fourm"
NUM_STORED = {"mod21_tokens": 2048, "mod21_pixels": 1024}  # records on disk
NUM_READ = {"mod21_tokens": 100_000, "mod21_pixels": 20_000}
NUM_WARM = 2_000  # read before the clock starts
BATCH_SIZE = 128


def run() -> list[dict]:
    """Return one row per case: records/s, CPU time, memory at the start, at the end and at most."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.map(measure, NUM_STORED, chunksize=1)


def measure(case: str) -> dict:
    """Write the shards of one case, then read them batch by batch."""
    names = tuple(n for n in registry.MOD21_IN if n != "rgb@224" or case == "mod21_pixels")
    specs = registry.resolve(FAMILY, names)
    directory = tempfile.mkdtemp()
    try:
        shard_writer.write_split(
            directory, "train", {}, 4, lambda shard: _records(specs, shard, NUM_STORED[case] // 4)
        )
        dataset = datasets.Dataset(
            name=case,
            source=token_shards.make_source("train", directory=directory),
            fields={name: name for name in names},
        )
        return {"suite": "pipeline", "case": case, **_read(dataset, specs, NUM_READ[case])}
    finally:
        shutil.rmtree(directory)


def _records(specs: Sequence[ModalitySpec], seed: int, count: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        record = fake.record(specs, rng, fake.LENGTHS)
        record["t5_caption"] = record["t5_caption"].astype(ml_dtypes.bfloat16)
        if "rgb@224" in record:
            record["rgb@224"] = _picture(rng)
        yield record


def _picture(rng: np.random.Generator) -> np.ndarray:
    """Smooth colours and a little noise: compresses about as well as a photograph."""
    coarse = Image.fromarray(rng.integers(0, 240, (7, 7, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((224, 224), Image.Resampling.BICUBIC))
    return smooth // 16 * 15 + rng.integers(0, 16, smooth.shape, dtype=np.uint8)


def _read(dataset: datasets.Dataset, specs: Sequence[ModalitySpec], count: int) -> dict[str, Any]:
    batches = pipeline.make_batches([dataset], specs, batch_size=BATCH_SIZE, seed=0)
    for _ in range(max(NUM_WARM // BATCH_SIZE, 1)):  # open the files, fill the buffers
        next(batches)
    num_batches = count // BATCH_SIZE
    psutil = extras.require("psutil", extra="benchmarks", who="the benchmark of the pipeline")
    process = psutil.Process()
    memory, start, cpu = [], time.perf_counter(), time.process_time()
    for _ in range(num_batches):
        next(batches)
        memory.append(process.memory_info().rss / 2**30)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    records = num_batches * BATCH_SIZE
    return {
        "records_per_s": round(records / seconds),
        "cpu_us_per_record": round(cpu / records * 1e6, 1),
        "start_rss_gb": round(memory[0], 3),
        "end_rss_gb": round(memory[-1], 3),
        "peak_rss_gb": round(max(memory), 3),
        "num_records": records,
        "load_average": round(os.getloadavg()[0], 2),
    }
