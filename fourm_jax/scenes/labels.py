"""Labels of scenes to fine-tune on: what stands in front, where, how much of it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fourm_jax.scenes import world
from fourm_jax.utils import errors

Record = Mapping[str, Any]


def _largest(record: Record) -> np.int32:
    """Class of the object that shows most, index into `signals.CLASSES`; 0 where there is none."""
    shown = record["semseg"][record["instance"] == 1]
    return np.int32(np.bincount(shown).argmax() if shown.size else 0)


# Name -> label of a record.
LABELS: Mapping[str, Callable[[Record], Any]] = {
    "cls": _largest,
    "seg": lambda record: record["semseg"].astype(np.int32),
    "depth": lambda record: record["depth"],
    "pose": lambda record: record["poses"][0, :3],
    "count": lambda record: np.float32(record["num_objects"]),
}


MAX_DEPTH = 10.0  # metres, of the value 255


def with_depth(record: Record) -> UInt8[np.ndarray, "h w 4"]:
    """The picture with its depth as a fourth channel."""
    steps = np.clip(record["depth"] / MAX_DEPTH, 0, 1) * 255
    return np.concatenate([record["rgb"], np.rint(steps)[..., None].astype(np.uint8)], axis=-1)


class LabelledSource:
    """Scenes with two more fields, "label" and the picture "rgbd"."""

    def __init__(self, source: world.SceneSource, label: str) -> None:
        """Choose the label, a key of `LABELS`.

        Raises:
          ValueError: there is no such label.
        """
        if label not in LABELS:
            raise ValueError(errors.unknown_value("label", label, LABELS))
        self._source, self._make = source, LABELS[label]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._source[index]
        return {**record, "label": self._make(record), "rgbd": with_depth(record)}
