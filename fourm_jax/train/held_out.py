"""Loss of a trunk on held-out records while it trains: the same records and masks every time."""

from collections.abc import Iterable, Sequence

import jax
import ml_collections
from jaxtyping import Array, Int

from fourm_jax.contracts import Batch
from fourm_jax.data import pipeline
from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.models import from_config
from fourm_jax.parallel import distributed
from fourm_jax.train import loop, metrics, run_config
from fourm_jax.train.state import TrainState
from fourm_jax.utils import rng

NUM_BATCHES = 8


def make_evaluator(config: ml_collections.ConfigDict) -> loop.Evaluator:
    """Return what `config.eval_every` asks for; it yields "loss", "loss/<modality>" and the like.

    It reads up to eight whole batches of the split "test", of each data set the same number of
    records or all that it has, and the averaged parameters where an average is kept. As in
    training, the next record takes the place of a bad one, as far as `max_left_out_records` allows.

    Raises:
      ValueError: a config of something else than a trunk, or fewer held-out records than a batch.
    """
    if config.task != "fourm":
        raise ValueError(f"eval_every {config.eval_every} in a config of task {config.task!r}")
    task, specs = run_config.make_task(config), from_config.resolve_specs(config)
    datasets = run_config.make_datasets(config, "test")
    size = config.batch_size // config.masking.maskings_per_record
    numbers = _numbers([len(one.source) for one in datasets], size)
    if not sum(numbers):
        raise ValueError(f"eval_every: fewer held-out records than the {size} of a batch")
    left_out = LeftOutLog(config.max_left_out_records)
    root = rng.stream(jax.random.key(config.seed), "held_out")

    @jax.jit
    def sums(state: TrainState, batch: Batch, number: Int[Array, ""]) -> metrics.Metrics:
        key = jax.random.fold_in(root, number)
        _, aux = task.loss(state.eval_params, state.model_state, batch, key, False)
        return aux.metrics

    def evaluate(state: TrainState, step: int) -> Iterable[tuple[str, float]]:
        del step
        mesh = jax.tree.leaves(state.params)[0].sharding.mesh
        index, count = distributed.part_of_batch(mesh)
        batches = pipeline.one_pass(
            datasets,
            specs,
            batch_size=size,
            num_records=numbers,
            process_index=index,
            process_count=count,
            left_out=left_out,
        )
        total: metrics.Metrics | None = None
        for number, (batch, _) in enumerate(batches):
            new = sums(state, distributed.put_batch(batch, mesh), number)
            total = new if total is None else metrics.add(total, new)
        yield from metrics.compute(total or {}, task.labels).items()

    return evaluate


def _numbers(sizes: Sequence[int], batch_size: int) -> list[int]:
    """How many records of each data set make up whole batches; the largest lack what is too many.

    >>> _numbers([100, 3], batch_size=8)  # 35 records of 64, in four batches
    [29, 3]
    """
    share = -(-NUM_BATCHES * batch_size // len(sizes))
    numbers = [min(share, size) for size in sizes]
    num_batches = min(sum(numbers) // batch_size, NUM_BATCHES)
    while sum(numbers) > num_batches * batch_size:
        last_largest = max(range(len(numbers)), key=lambda n: (numbers[n], n))
        numbers[last_largest] -= 1
    return numbers
