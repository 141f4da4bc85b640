"""Loss of the trunk on held-out records, per modality, under masks that a record's number fixes.

Every target token counts once, whatever the batch size and the number of devices.
"""

import contextlib
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Key

from fourm_jax.contracts import Batch
from fourm_jax.data import pipeline
from fourm_jax.evals import bootstrap, evaluator
from fourm_jax.evals.evaluator import Context, Findings, Masking
from fourm_jax.masking import sample
from fourm_jax.masking.mixture import Mixture
from fourm_jax.models.fourm import FourM
from fourm_jax.parallel import distributed, mesh, sharding, shares
from fourm_jax.utils import errors, progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationLoss:
    """Cross-entropy and accuracy per target token: task "all", and one per modality.

    Options as of `make`.
    """

    batch_size: int
    seed: int
    num_inputs: int
    num_targets: int
    budget: str
    weights: tuple[float, ...]

    def check(self, context: Context) -> None:
        """Refuse records of which nothing says how to mask them.

        Raises:
          ValueError: nothing does.
        """
        if context.masking is None:
            raise ValueError("val_loss needs a masking mixture: that of the run, or of --data")
        count = context.masking.mixture.weights.shape[1]
        if self.weights and len(self.weights) != count:
            raise ValueError(f"option weights={self.weights}: the mixture has {count} components")

    def __call__(self, context: Context) -> Findings:
        """Read the data sets once."""
        assert context.masking is not None
        sums = self._sums(context, self._masks(context.masking))  # [n, 3, modalities]
        names = [spec.name for spec in context.generator.model.modalities]
        shown = {"all": sums.sum(axis=2)}
        shown |= {name: sums[:, :, number] for number, name in enumerate(names)}
        tasks = {}
        for name, own in shown.items():
            if not own[:, 2].sum():
                continue
            first, second = (_entry(own, number) for number in range(2))
            tasks[name] = {**first, "also": [second]}
        return Findings(tasks=tasks)

    def _masks(self, masking: Masking) -> Masking:
        """Those of the training, but for what the options say."""
        mixture = masking.mixture
        if self.weights:
            weights = np.broadcast_to(np.asarray(self.weights, np.float32), mixture.weights.shape)
            mixture = dataclasses.replace(mixture, weights=weights)
        return Masking(
            mixture=mixture,
            num_inputs=self.num_inputs or masking.num_inputs,
            num_targets=self.num_targets or masking.num_targets,
            budget=self.budget or masking.budget,
        )

    def _sums(self, context: Context, masking: Masking) -> Float[np.ndarray, "n 3 m"]:
        """Loss, hits and number of targets of every record, by modality."""
        generator = context.generator
        devices = generator.mesh or mesh.make_mesh(devices=jax.local_devices()[:1])
        # On a mesh of several processes a batch is divided, else whole batches are.
        index, count = distributed.part_of_batch(devices)
        rows = -(-self.batch_size // devices.size) * devices.size  # every device the same number
        sizes = [len(one.source) for one in context.datasets]
        total = sum(min(context.num_records or size, size) for size in sizes)
        batches = pipeline.one_pass(
            context.datasets,
            generator.model.modalities,
            batch_size=rows,
            num_records=context.num_records,
            process_index=index,
            process_count=count,
            left_out=context.left_out,
        )
        bar = progress.Bar(total, label="val_loss", unit="record", enabled=context.show_progress)

        def sums(item: tuple[int, tuple[Batch, Any]]) -> Float[np.ndarray, "b 3 m"]:
            start, (batch, valid) = item
            first = start + index * (rows // count)
            numbers = np.arange(first, first + rows // count, dtype=np.int32)
            batch, numbers, valid = distributed.put_batch((batch, numbers, valid), devices)
            keys = sample.evaluation_keys(numbers, self.seed)
            with jax.set_mesh(devices):
                own = _sums_of(
                    generator.model,
                    generator.params,
                    batch,
                    valid,
                    keys,
                    masking.mixture,
                    masking.num_inputs,
                    masking.num_targets,
                    masking.budget,
                )
            bar.update(min(start + rows, total))
            return np.asarray(own, np.float64)

        items = zip(range(0, total, rows), batches, strict=True)
        with contextlib.closing(bar):
            found = shares.divided(items, sums) if generator.is_divided else list(map(sums, items))
        joined = np.concatenate(found)
        return joined[~np.isnan(joined[:, 2, 0])]


def make(
    batch_size: int = 64,
    seed: int = 0,
    num_inputs: int = 0,
    num_targets: int = 0,
    budget: str = "",
    weights: tuple[float | str, ...] = (),
) -> ValidationLoss:
    """Return the evaluator.

    Args:
      seed: of the masks.
      num_inputs, num_targets, budget: slots of a sample and what becomes of those that are left,
        where runs that were trained with others are compared; 0 and "": those of the training.
      weights: of the components of the mixture; none: those of the training.

    Raises:
      ValueError: no row at once, a negative number of slots, an unknown budget, or weights that are
        none.
    """
    shares_of = [float(weight) for weight in weights]
    if weights and not (0 < sum(shares_of) < math.inf and min(shares_of) >= 0):
        raise ValueError(f"option weights={shares_of}, allowed: numbers from 0 on, not all 0")
    if batch_size < 1:
        raise ValueError(f"option batch_size={batch_size}, must be at least 1")
    if min(num_inputs, num_targets) < 0:
        raise ValueError(f"options num_inputs={num_inputs}, num_targets={num_targets} below 0")
    if budget and budget not in sample.BUDGETS:
        raise ValueError(errors.unknown_value("option budget", budget, sample.BUDGETS))
    return ValidationLoss(
        batch_size=batch_size,
        seed=seed,
        num_inputs=num_inputs,
        num_targets=num_targets,
        budget=budget,
        weights=tuple(shares_of),
    )


@functools.partial(jax.jit, static_argnames=("model", "num_inputs", "num_targets", "budget"))
def _sums_of(
    model: FourM,
    params: Any,
    batch: Batch,
    valid: Bool[Array, "b"],
    keys: Key[Array, "b"],
    mixture: Mixture,
    num_inputs: int,
    num_targets: int,
    budget: str,
) -> Float[Array, "b 3 m"]:
    """Loss, hits and number of targets of every row, by modality; nan where it is not valid."""
    tokens = sample.sample_tokens(
        keys,
        batch,
        mixture,
        specs=model.modalities,
        inputs=model.inputs,
        outputs=model.outputs,
        num_inputs=num_inputs,
        num_targets=num_targets,
        budget=budget,
    )
    predicted: Any = model.apply({"params": params}, tokens, method="token_losses")
    targets = tokens.targets
    belongs = jax.nn.one_hot(targets.modality, len(model.modalities)) * targets.valid[..., None]
    values = jnp.stack(
        [jnp.where(targets.valid, predicted.loss, 0.0), predicted.correct, targets.valid], axis=1
    )
    sums = jnp.einsum("bkt,btm->bkm", values, belongs, precision="highest")
    # every process counts all records
    return sharding.constrain(jnp.where(valid[:, None, None], sums, jnp.nan), P())


def _entry(sums: Float[np.ndarray, "n 3"], which: int) -> dict[str, Any]:
    """Loss (0) or accuracy (1) per target token, with its interval over the records."""
    total, count = sums[:, which], sums[:, 2]

    def mean(rows: Int[np.ndarray, "n"]) -> float:
        number = count[rows].sum()  # 0 where a draw holds no record with this modality
        return float(total[rows].sum() / number) if number else math.nan

    return evaluator.entry(
        ("loss", "accuracy")[which],
        mean(np.arange(len(sums))),
        int(count.sum()),
        higher_is_better=which == 1,
        unit=("nats", "")[which],
        interval=bootstrap.interval(mean, len(sums)),
    )
