"""Where metrics go: a JSONL file always, TensorBoard through clu when TensorFlow is installed."""

import importlib
import importlib.util
import json
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax
from etils import epath

from fourm_jax.train import metrics
from fourm_jax.utils import io


@runtime_checkable
class Writer(Protocol):
    """Takes the values of one log point."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class JsonlWriter:
    """Appends one JSON object per log point to <workdir>/metrics.jsonl."""

    def __init__(self, workdir: epath.PathLike, *, start: int) -> None:
        """Continue after step `start`: later points, written by a killed run, are cut off."""
        path = epath.Path(workdir) / metrics.HISTORY
        kept = [point for point in metrics.read_history(workdir) if point["step"] <= start]
        io.write_text(path, "".join(json.dumps(point) + "\n" for point in kept))
        self._file = path.open("a")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class CluWriter:
    """TensorBoard event files in <workdir>/tensorboard, written in the background by clu."""

    def __init__(self, workdir: epath.PathLike) -> None:
        from clu import metric_writers  # imports TensorFlow

        tensorflow = importlib.import_module("tensorflow")
        if tensorflow.config.get_visible_devices("GPU"):  # it would claim their whole memory
            tensorflow.config.set_visible_devices([], "GPU")
        folder = epath.Path(workdir) / "tensorboard"
        self._writer = metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(folder)))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._writer.write_scalars(step, values)

    def close(self) -> None:
        self._writer.close()


class Writers:
    """Several writers as one."""

    def __init__(self, parts: tuple[Writer, ...]) -> None:
        self._parts = parts

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for part in self._parts:
            part.write(step, values)

    def close(self) -> None:
        for part in self._parts:
            part.close()


def make(workdir: epath.PathLike, *, start: int) -> Writers:
    """Writers of a run that continues after step `start`; only the first process writes."""
    if jax.process_index() != 0:
        return Writers(())
    parts: tuple[Writer, ...] = (JsonlWriter(workdir, start=start),)
    if importlib.util.find_spec("tensorflow") is not None:
        parts += (CluWriter(workdir),)
    return Writers(parts)
