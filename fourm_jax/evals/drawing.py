"""How the values of a modality are drawn: by one of the files in `evals.drawings`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fourm_jax.evals import drawings, measure
from fourm_jax.evals.pictures import Picture
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers.signal import Signal
from fourm_jax.utils import modules

PICTURES = "rgb"  # field of a record that shows it
Cell = Picture | str
# A value as a raw record field holds it, and the picture of the same record if there is one.
Draw = Callable[[Any, Picture | None], Cell]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """What all drawings of one modality in a report share.

    Attributes:
      reference: [n, ...] values of other records, for ranges and components; None: each value's
        own.
      pictures: [n, h, w, 3] of the same records, where they have some.
      num_classes: of label maps; 0: as many as a value needs.
      classes: names of the ids of a label map.
      unit: of numbers, "" where they have none.
    """

    reference: np.ndarray | None = None
    pictures: np.ndarray | None = None
    num_classes: int = 0
    classes: tuple[str, ...] = ()
    unit: str = ""


def of(
    spec: ModalitySpec,
    *,
    signal: Signal | None = None,
    reference: Mapping[str, Any] | None = None,
) -> Draw:
    """Return how values of a modality are drawn.

    Args:
      signal: what its tokenizer reads, where one is at hand; else the drawing follows the value.
      reference: fields of other records, for one scale over a whole report.

    Raises:
      ValueError: `spec.picture` is no drawing.
    """
    scale = _scale(spec, signal, reference)

    def draw(value: Any, picture: Picture | None = None) -> Cell:
        return _make(spec.picture or _default(spec, signal, value), scale)(value, picture)

    return _make(spec.picture, scale) if spec.picture else draw


def legend(
    spec: ModalitySpec,
    value: Any,
    *,
    signal: Signal | None = None,
    reference: Mapping[str, Any] | None = None,
) -> Cell:
    """What the colours of a drawing mean: names of classes, a scale of depth; "" of others.

    Args:
      value: what is drawn; its range is the scale's where there is no reference.
      signal, reference: see `of`.
    """
    module = modules.get(drawings, "make", spec.picture or _default(spec, signal, value), "drawing")
    make_legend = getattr(module, "legend", None)
    return make_legend(_scale(spec, signal, reference), value) if make_legend else ""


def _scale(spec: ModalitySpec, signal: Signal | None, reference: Mapping[str, Any] | None) -> Scale:
    fields = reference or {}
    field, pictures = fields.get(spec.source), fields.get(PICTURES)
    num_classes = signal.num_classes if signal else 0
    return Scale(
        reference=field if isinstance(field, np.ndarray) else None,
        pictures=pictures if isinstance(pictures, np.ndarray) else None,
        num_classes=num_classes or len(spec.classes),
        classes=spec.classes,
        unit=measure.unit(spec),
    )


def _make(name: str, scale: Scale) -> Draw:
    return modules.get(drawings, "make", name, "drawing").make(scale)


def _default(spec: ModalitySpec, signal: Signal | None, value: Any) -> str:
    """The drawing of an array by its type and shape; text of everything else."""
    if not isinstance(value, np.ndarray) or not value.ndim:
        return "text"
    if (signal and signal.kind == "classes") or spec.classes:
        return "classes"
    if value.ndim == 1:
        return "vector"
    if value.dtype == np.uint8:
        return "grey" if value.ndim == 2 else "image"
    return "depth" if value.ndim == 2 else "features"
