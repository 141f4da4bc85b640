"""How good a transfer is: every held-out record counted once."""

from collections.abc import Iterable
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import PartitionSpec as P

from fourm_jax.data import pipeline
from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.evals.measures import miou
from fourm_jax.parallel import distributed, sharding
from fourm_jax.train import loop, run_config
from fourm_jax.train.state import TrainState
from fourm_jax.train.transfer_task import LABEL, Labels, TransferTask

BATCH = 64


def make_evaluator(config: ml_collections.ConfigDict) -> loop.Evaluator:
    """Return the evaluator of a transfer; it reads the split "test".

    It yields "accuracy" of classes, "pixel_accuracy" and "miou" of maps of them, "mae" of numbers,
    with "exact" (the share that rounds to the truth), and of positive maps "abs_rel" and "delta1".
    As many bad records do not count as `max_left_out_records` allows.

    Raises:
      ValueError: as `run_config.make_task`; labels that do not fit.
    """
    task = run_config.make_task(config)
    assert isinstance(task, TransferTask)
    reader = run_config.transfer_reader(config, task, "test")
    left_out = LeftOutLog(config.max_left_out_records)

    @jax.jit
    def predict(params: Any, batch: Any, label: jax.Array, valid: jax.Array) -> Any:
        # Every process gets all rows, with their labels: a mesh has the parts in its own order.
        found = (task.predict(params, batch), label, valid)
        return jax.tree.map(lambda x: sharding.constrain(x, P()), found)

    def evaluate(state: TrainState, step: int) -> Iterable[tuple[str, float]]:
        del step
        mesh = jax.tree.leaves(state.params)[0].sharding.mesh
        index, count = distributed.part_of_batch(mesh)
        size = -(-BATCH // mesh.size) * mesh.size
        outputs, labels = [], []
        own = slice(index * (size // count), (index + 1) * (size // count))
        # Every process reads all records: their bad ones are counted together.
        for batch, all_valid in pipeline.one_pass_of(reader, batch_size=size, left_out=left_out):
            rows = jax.tree.map(lambda x: x[own], (batch, batch.pop(LABEL), all_valid))
            with jax.set_mesh(mesh):
                found = predict(state.eval_params, *distributed.put_batch(rows, mesh))
            output, label, valid = (np.asarray(x) for x in found)
            outputs.append(output[valid])
            labels.append(label[valid])
        yield from score(np.concatenate(outputs), np.concatenate(labels), task.labels_of).items()

    return evaluate


def score(outputs: np.ndarray, labels: np.ndarray, settings: Labels) -> dict[str, float]:
    """Measures of all predictions; labels that do not count are left out.

    Args:
      outputs: logits [n, k] or [n, h, w, k]; or values in standard deviations from their mean.
      labels: as `transfer_data.label_of` gives them.
    """
    if settings.has_classes:
        predicted, known = outputs.argmax(-1), labels != settings.ignored
        accuracy = float((predicted == labels)[known].mean())
        if settings.problem == "classes":
            return {"accuracy": accuracy}
        counts = miou.confusion(predicted[known], labels[known], settings.num_outputs)
        return {"pixel_accuracy": accuracy, "miou": miou.mean_iou(counts)}
    predicted = outputs * settings.std + settings.mean
    labels = labels.reshape(predicted.shape)
    known = np.isfinite(labels)
    predicted, labels = predicted[known], labels[known]
    found = {"mae": float(np.abs(predicted - labels).mean())}
    if settings.problem == "values":
        return {**found, "exact": float((np.rint(predicted) == labels).mean())}
    positive = labels > 0
    predicted, labels = np.maximum(predicted[positive], 1e-6), labels[positive]
    ratio = np.maximum(predicted / labels, labels / predicted)
    relative = np.abs(predicted - labels) / labels
    return {**found, "abs_rel": float(relative.mean()), "delta1": float((ratio < 1.25).mean())}
