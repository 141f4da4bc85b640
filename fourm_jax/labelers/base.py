"""What a labeler is: one file of this package that adds fields to records of pictures."""

import dataclasses
import graphlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fourm_jax import labelers
from fourm_jax.modalities import registry, serializers
from fourm_jax.utils import errors, modules

Record = Mapping[str, Any]

FILE_FIELDS = ("file", "path")  # what every record starts with: its name, and where it lies
ALIGNED = ("hw", "hwc")


@runtime_checkable
class Label(Protocol):
    """What a labeler does: several records at once, so that a model sees a batch."""

    def __call__(self, records: Sequence[Record], /) -> Sequence[dict[str, Any]]:
        """The fields that are added to each record, in their order.

        Pictures `rgb` are uint8 [h, w, 3]; each added field is typed as its `Output` says. Whatever
        is raised means that some record cannot be labelled.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
    """How a labeler's field is typed.

    Attributes:
      axes: "hw" and "hwc" have the height and width of `rgb`; "ijc" is a coarser map of the whole
        picture; "c" a vector; "" text, lists and mappings, in the form that the module of
        `modalities` for this field takes.
      dtype: of arrays.
      low, high: range of the values.
      unit: vectors along c have length 1.
    """

    axes: str = ""
    dtype: str = ""
    low: float = -np.inf
    high: float = np.inf
    unit: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labeler:
    """Adds fields to records.

    Attributes:
      name: of its file.
      inputs: fields that it reads.
      optional: fields that it reads where another labeler makes them.
      outputs: fields that it makes; a record may lack one (no caption).
      label: does it.
      settings: what the result depends on (JSON values): a data set made with others is another.
    """

    name: str
    inputs: tuple[str, ...]
    optional: tuple[str, ...] = ()
    outputs: Mapping[str, Output]
    label: Label
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def names() -> list[str]:
    """Every labeler there is: the modules of this package with a function `make_labeler`."""
    return sorted(modules.offering(labelers, "make_labeler"))


def make(name: str, arguments: Mapping[str, Any] | None = None) -> Labeler:
    """Build a labeler by name: `make_labeler(**arguments)` of its module.

    Raises:
      ValueError: no such labeler, an argument that it does not take or one that is missing, or what
        it refuses (a model that is not there, an extra that is not installed).
    """
    module, arguments = modules.get(labelers, "make_labeler", name, "labeler"), arguments or {}
    try:
        inspect.signature(module.make_labeler).bind(**arguments)
    except TypeError as error:
        taken = list(inspect.signature(module.make_labeler).parameters)
        raise ValueError(
            f"labeler {name!r}: {error}; it takes {taken or 'no arguments'}"
        ) from error
    return module.make_labeler(**arguments)


def in_order(chosen: Sequence[Labeler]) -> list[Labeler]:
    """The labelers so that each comes after those whose fields it reads; by name where free.

    Raises:
      ValueError: a field that nothing makes or that two make, or labelers that need each other.
    """
    makers: dict[str, Labeler] = {}
    for labeler in chosen:
        for field in labeler.outputs:
            if field in makers or field in FILE_FIELDS:
                other = makers[field].name if field in makers else "every record"
                raise ValueError(f"field {field!r} is made by {labeler.name!r} and by {other!r}")
            makers[field] = labeler
    by_name = {labeler.name: labeler for labeler in chosen}
    after: dict[str, set[str]] = {name: set() for name in sorted(by_name)}
    for name, labeler in by_name.items():
        for field in (*labeler.inputs, *labeler.optional):
            if field in makers:
                after[name].add(makers[field].name)
            elif field in labeler.inputs and field not in FILE_FIELDS:
                raise ValueError(
                    f"labeler {name!r} reads field {field!r}, which none of {sorted(by_name)} makes"
                )
    try:
        return [by_name[name] for name in graphlib.TopologicalSorter(after).static_order()]
    except graphlib.CycleError as error:
        raise ValueError(f"labelers that wait for each other: {error.args[1]}") from error


def check(labeler: Labeler, record: Record, labels: Mapping[str, Any]) -> None:
    """Check what a labeler has made of a record.

    Raises:
      ValueError: a field that it does not announce, or one that is not typed as announced.
    """
    for field, value in labels.items():
        if field not in labeler.outputs:
            what = f"field of labeler {labeler.name!r}"
            raise ValueError(errors.unknown_value(what, field, labeler.outputs))
        output, what = labeler.outputs[field], f"labeler {labeler.name!r}, field {field!r}"
        if not output.axes:
            spec = registry.sources().get(field)
            if spec and spec.kind == "sequence":  # must have a text: tokenizers write it
                form = serializers.get(spec.text_form)
                form.serialize(value, np.random.default_rng(0))
                form.count_changes(value)  # looks at all that one text may be drawn from
            continue
        if not isinstance(value, np.ndarray) or value.dtype != output.dtype:
            found = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise ValueError(f"{what}: {found}, announced: {output.dtype}")
        if value.ndim != len(output.axes) or not value.size:
            raise ValueError(f"{what}: shape {value.shape}, announced: {output.axes}")
        rgb = {**record, **labels}["rgb"] if output.axes in ALIGNED else value
        if value.shape[:2] != rgb.shape[:2]:
            raise ValueError(f"{what}: shape {value.shape} on a picture of {rgb.shape}")
        finite = np.isfinite(value).all()
        if not (finite and value.min() >= output.low and value.max() <= output.high):
            raise ValueError(
                f"{what}: values {value.min()} … {value.max()}, announced: "
                f"{output.low:g} … {output.high:g}"
            )
        if output.unit and np.abs(np.linalg.norm(value, axis=-1) - 1).max() > 1e-3:
            raise ValueError(f"{what}: vectors whose length is not 1")
