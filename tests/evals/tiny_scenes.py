"""The tiny trunk of `tests.train.tiny` with random weights, and fake records for it."""

import functools

import jax
import numpy as np

from fourm_jax.data.sources import fake
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs.eval_data import EvalData
from fourm_jax.train import run_config
from tests.train import tiny

NAMES = ("rgb", "tok_depth", "caption")
CONFIG = tiny.trunk(data__0__arguments={"names": NAMES, "num_records": 13})


@functools.cache
def generator() -> Generator:
    """It has no tokenizers."""
    task = run_config.make_task(CONFIG)
    batch = fake.batch(task.model.modalities, 8)
    shapes, _ = jax.eval_shape(task.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(scale=0.3, size=s.shape).astype(s.dtype), shapes)
    return Generator(task.model, params)


def data() -> EvalData:
    return EvalData(groups=tuple(CONFIG.data))
