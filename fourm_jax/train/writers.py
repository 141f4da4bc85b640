"""Where metrics go: a JSONL file and TensorBoard's event files; Weights & Biases on request."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from etils import epath
from jaxtyping import Float, UInt8

from fourm_jax.train import metrics
from fourm_jax.utils import event_file, extras, io

WANDB_PROJECT = "WANDB_PROJECT"


# A text (Markdown), a picture (uint8, RGB), or numbers whose distribution is of interest.
Shown = str | UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "..."]


@runtime_checkable
class Writer(Protocol):
    """Takes the values of one log point, and what is to be looked at."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def show(self, step: int, shown: Mapping[str, Shown]) -> None: ...

    def close(self) -> None: ...


class JsonlWriter:
    """Appends one JSON object per log point to <workdir>/metrics.jsonl."""

    def __init__(self, workdir: epath.PathLike, *, start: int) -> None:
        """Continue after step `start`: later points, written by a killed run, are cut off."""
        self._path = epath.Path(workdir) / metrics.HISTORY
        kept = [point for point in metrics.read_history(workdir) if point["step"] <= start]
        io.write_text(self._path, "".join(json.dumps(point) + "\n" for point in kept))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        io.append(self._path, (json.dumps({"step": step, **values}) + "\n").encode())

    def show(self, step: int, shown: Mapping[str, Shown]) -> None:
        """Numbers alone are kept here."""

    def close(self) -> None:
        """Nothing is held open."""


class TensorBoardWriter:
    """Event files in <workdir>/tensorboard; the config stands beside the curves as a text."""

    def __init__(self, workdir: epath.PathLike, config: Mapping[str, Any]) -> None:
        self._events = event_file.EventWriter(epath.Path(workdir) / "tensorboard")
        lines = json.dumps(config, indent=2).splitlines()
        self._events.text(0, "config", "\n".join(f"    {line}" for line in lines))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._events.scalars(step, values)
        self._events.flush()

    def show(self, step: int, shown: Mapping[str, Shown]) -> None:
        for name, one in shown.items():
            if isinstance(one, str):
                self._events.text(step, name, one)
            elif one.dtype == np.uint8:
                self._events.picture(step, name, one)
            else:
                self._events.histogram(step, name, one)
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class WandbWriter:
    """Weights & Biases through its own client, where it is installed and WANDB_PROJECT is set.

    A continued run goes on under its name; points that it repeats are dropped there.
    """

    def __init__(self, workdir: epath.PathLike, config: Mapping[str, Any]) -> None:
        self._wandb = extras.require(
            "wandb", extra="wandb", who=f"{WANDB_PROJECT} in the environment"
        )
        place = str(io.absolute(workdir))
        self._run = self._wandb.init(
            project=os.environ[WANDB_PROJECT],
            name=epath.Path(workdir).name,
            id=hashlib.sha256(place.encode()).hexdigest()[:16],
            config=dict(config),
            dir=tempfile.gettempdir(),
            resume="allow",
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def show(self, step: int, shown: Mapping[str, Shown]) -> None:
        pictures = {
            name: self._wandb.Image(one)
            for name, one in shown.items()
            if not isinstance(one, str) and one.dtype == np.uint8
        }
        if pictures:
            self._run.log(pictures, step=step)

    def close(self) -> None:
        self._run.finish()


class Writers:
    """Several writers as one."""

    def __init__(self, parts: tuple[Writer, ...]) -> None:
        self._parts = parts

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for part in self._parts:
            part.write(step, values)

    def show(self, step: int, shown: Mapping[str, Shown]) -> None:
        for part in self._parts:
            part.show(step, shown)

    def close(self) -> None:
        for part in self._parts:
            part.close()


def make(
    workdir: epath.PathLike, *, start: int, config: Mapping[str, Any] | None = None
) -> Writers:
    """Writers of a run that continues after step `start`; only the first process writes.

    Raises:
      ValueError: WANDB_PROJECT is set and wandb is not installed.
    """
    if jax.process_index() != 0:
        return Writers(())
    parts: tuple[Writer, ...] = (
        JsonlWriter(workdir, start=start),
        TensorBoardWriter(workdir, config or {}),
    )
    if os.environ.get(WANDB_PROJECT):
        parts += (WandbWriter(workdir, config or {}),)
    return Writers(parts)
