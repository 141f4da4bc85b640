"""Running means as (sum, count) pairs on the device, and the history they leave in a workdir."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Shaped

from fourm_jax.utils import io, plain_data

# {name: (sum, count)}; a task fills it, the train step adds it up, a log point divides.
Metrics = dict[str, tuple[Float[Array, "..."], Float[Array, "..."]]]

HISTORY = "metrics.jsonl"
# Of the machine, not of the training: another run of the same training has other values.
MEASURED = (
    "samples_per_second",
    "tokens_per_second",
    "step_seconds",
    "waiting_share",
    "mfu",
    "peak_memory_gib",
)


def mean(values: Shaped[Array, "..."]) -> tuple[Array, Array]:
    """(sum, count) of `values`; over the whole global batch under jit."""
    return values.sum(dtype=jnp.float32), jnp.float32(values.size)


def add(total: Metrics, new: Metrics) -> Metrics:
    """Add sums and counts."""
    return jax.tree.map(jnp.add, total, new)


def compute(metrics: Metrics, labels: Sequence[str] = ()) -> dict[str, float]:
    """Divide on the host; what counted nothing (an absent modality) is left out.

    A metric named "loss/*" holds vectors and becomes "loss/<label>" for each of `labels`: one
    small array instead of one per modality.
    """
    values = {}
    for name, (total, count) in jax.device_get(metrics).items():
        names = [name.replace("*", label) for label in labels] if "*" in name else [name]
        pairs = zip(np.atleast_1d(total), np.atleast_1d(count), strict=True)
        for one, (part, number) in zip(names, pairs, strict=True):
            if number > 0:
                values[one] = float(part / number)
    return values


def read_history(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Log points of a run in the order of their steps, each {"step": n, name: value, ...}.

    Records of one step (training and evaluation) are merged. A half-written last line, which a
    killed process may leave, is dropped.

    Raises:
      ValueError: a line that is no log point.
    """
    path = epath.Path(workdir) / HISTORY
    if not path.exists():
        return []
    history: dict[int, dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        try:
            record = io.parse_json(line, path)
        except ValueError:
            continue
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            raise ValueError(f"{path}: {plain_data.shown(record)} is no log point")
        history.setdefault(record["step"], {}).update(record)
    return [history[step] for step in sorted(history)]
