"""Speed of the host pipeline, token shards to padded batches, at the sizes of the 21-modality mix.

`mod21_tokens` reads the 17 token modalities and T5 embeddings (bfloat16, 10-40 vectors of 4,096);
`mod21_pixels` also 224 × 224 pictures stored as uint8. `…_workers2` leaves the reading to two
processes (`config.num_workers`). Texts have realistic lengths. Every case runs in a process of its
own and reads its records several times, shuffled.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from fourm_jax.data import datasets, pipeline
from fourm_jax.data.sources import fake, token_shards
from fourm_jax.data.storage import shard_writer
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import errors, extras

FAMILY = "fourm"
NUM_WARM = 2_000  # read before the clock starts
BATCH_SIZE = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What is read: so many records on disk, so many in all, with or without pictures."""

    name: str
    num_stored: int
    num_read: int
    pixels: bool = False
    num_workers: int = 0


CASES = (
    Case(name="mod21_tokens", num_stored=2048, num_read=100_000),
    Case(name="mod21_tokens_workers2", num_stored=2048, num_read=100_000, num_workers=2),
    Case(name="mod21_pixels", num_stored=1024, num_read=20_000, pixels=True),
    Case(
        name="mod21_pixels_workers2", num_stored=1024, num_read=20_000, pixels=True, num_workers=2
    ),
)


def run(cases: Sequence[str] = ()) -> Iterator[dict]:
    """Yield one row per case: records/s, CPU time, memory at the start, at the end and at most.

    Raises:
      ValueError: an unknown case.
    """
    by_name = {case.name: case for case in CASES}
    for name in cases:
        if name not in by_name:
            raise ValueError(errors.unknown_value("case", name, by_name))
    context = multiprocessing.get_context("spawn")
    for name in cases or by_name:
        # not `multiprocessing.Pool`, whose processes may have no workers of their own
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            yield pool.submit(measure, by_name[name]).result()


def measure(case: Case) -> dict:
    """Write the shards of one case, then read them batch by batch."""
    names = tuple(n for n in registry.MOD21_IN if n != "rgb@224" or case.pixels)
    specs = registry.resolve(FAMILY, names)
    directory = tempfile.mkdtemp()
    try:
        shard_writer.write_split(
            directory, "train", {}, 4, lambda shard: _records(specs, shard, case.num_stored // 4)
        )
        dataset = datasets.Dataset(
            name=case.name,
            source=token_shards.make_source("train", directory=directory),
            fields={name: name for name in names},
        )
        row = {"suite": "pipeline", "case": case.name, "num_workers": case.num_workers}
        return row | _read(dataset, specs, case)
    finally:
        shutil.rmtree(directory)


def _records(specs: Sequence[ModalitySpec], seed: int, count: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        record = fake.record(specs, rng, fake.LENGTHS)
        if "rgb@224" in record:
            record["rgb@224"] = _picture(rng)
        yield record


def _picture(rng: np.random.Generator) -> np.ndarray:
    """Smooth colours and a little noise: compresses about as well as a photograph."""
    coarse = Image.fromarray(rng.integers(0, 240, (7, 7, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((224, 224), Image.Resampling.BICUBIC))
    return smooth // 16 * 15 + rng.integers(0, 16, smooth.shape, dtype=np.uint8)


def _read(dataset: datasets.Dataset, specs: Sequence[ModalitySpec], case: Case) -> dict[str, Any]:
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's workers look at them
    batches = pipeline.make_batches(
        [dataset], specs, batch_size=BATCH_SIZE, seed=0, num_workers=case.num_workers
    )
    for _ in range(max(NUM_WARM // BATCH_SIZE, 1)):  # open the files, fill the buffers
        next(batches)
    num_batches = case.num_read // BATCH_SIZE
    psutil = extras.require("psutil", extra="benchmarks", who="the benchmark of the pipeline")
    process = psutil.Process()

    def cpu_seconds() -> float:
        each = [one.cpu_times() for one in (process, *process.children(recursive=True))]
        return sum(times.user + times.system for times in each)

    memory, start, cpu = [], time.perf_counter(), cpu_seconds()
    for _ in range(num_batches):
        next(batches)
        memory.append(process.memory_info().rss / 2**30)
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    batches.close()
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
