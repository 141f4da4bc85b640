"""Where records come from: sources found by module name, and the data sets made of them."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Shaped

from fourm_jax.data import sources
from fourm_jax.data.crops import settings
from fourm_jax.data.storage import left_out
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import errors, modules, storage_errors


@runtime_checkable
class Source(Protocol):
    """Random access to records by index, 0..len - 1; `fields` (their schema) may stand beside it.

    A record is {field: array, text, number, list or mapping of these}. A damaged record is a
    ValueError that names it; an OSError is taken for storage that fails, and tried again
    (`utils.storage_errors`).
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


@runtime_checkable
class Placed(Protocol):
    """A source that knows where its records lie."""

    def place(self, index: int) -> str:
        """File and record of an index, for messages."""


@runtime_checkable
class Identified(Protocol):
    """A source of files, which may be others tomorrow under the same name."""

    @property
    def content(self) -> str:
        """Changes with the records."""


@runtime_checkable
class Batched(Protocol):
    """A source that reads several records faster at once."""

    def records(self, indices: Int[np.ndarray, "b"]) -> Mapping[str, Shaped[np.ndarray, "b ..."]]:
        """Their fields, stacked."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """One data set of a mixture.

    Attributes:
      name: for messages; also names its random stream, so adding a data set reshuffles no other.
      source: random access to its records.
      fields: {modality: record field}; modalities not listed are absent from this data set.
      weight: share of the samples, relative to the other data sets; positive.
      index: which masking mixture its samples follow.
    """

    name: str
    source: Source
    fields: Mapping[str, str]
    weight: float = 1.0
    index: int = 0


def get_source(name: str) -> ModuleType:
    """Return the module of `fourm_jax.data.sources` with `make_source(split, **arguments)`.

    Raises:
      ValueError: no such module (lists all that offer a source).
    """
    return modules.get(sources, "make_source", name, "data source")


def argument_names(name: str) -> list[str]:
    """Arguments that a source takes, beside the split."""
    parameters = inspect.signature(get_source(name).make_source).parameters
    return [key for key in parameters if key != "split"]


def open_source(name: str, split: str, arguments: Mapping[str, Any]) -> Source:
    """Open a source by name.

    Raises:
      ValueError: an unknown source, an argument that it does not take or one that is missing.
    """
    module, allowed = get_source(name), argument_names(name)
    for key in arguments:
        if key not in allowed:
            raise ValueError(errors.unknown_value(f"argument of source {name!r}", key, allowed))
    try:
        inspect.signature(module.make_source).bind(split, **arguments)
    except TypeError as error:
        raise ValueError(f"source {name!r}: {error}; it takes {allowed}") from error
    return module.make_source(split, **arguments)


def make_datasets(configs: Sequence[Mapping[str, Any]], split: str) -> tuple[Dataset, ...]:
    """Open every data set of a config.

    Args:
      configs: each {"name", "source", "arguments", "fields", "weight", …}; position in the list is
        the index of its masking mixture.

    Raises:
      ValueError: unknown source or argument, names that repeat, or what the source refuses.
    """
    names = [config["name"] for config in configs]
    if len(set(names)) != len(names):
        raise ValueError(f"data set names must differ, got {names}")
    return tuple(
        Dataset(
            name=config["name"],
            source=open_source(config["source"], split, config["arguments"]),
            fields=dict(config["fields"]),
            weight=config["weight"],
            index=index,
        )
        for index, config in enumerate(configs)
    )


def check(datasets: Sequence[Dataset], specs: Sequence[ModalitySpec]) -> None:
    """Check, before anything is read, that the data sets can feed these modalities.

    Raises:
      ValueError: a modality that no data set has, a field that the records lack, tokens of a
        larger vocabulary or of another size than the modality's.
    """
    for spec in specs:
        holders = [dataset for dataset in datasets if spec.name in dataset.fields]
        if not holders:
            known = {name for dataset in datasets for name in dataset.fields}
            raise ValueError(errors.unknown_value("modality in the data", spec.name, known))
        for dataset in holders:
            schema = getattr(dataset.source, "fields", None)
            if schema is not None:
                _check_field(dataset, spec, schema)


def in_no_record(datasets: Sequence[Dataset], specs: Sequence[ModalitySpec]) -> list[str]:
    """Names of the modalities that no record has, where the schemas of all data sets say so."""
    return [
        spec.name
        for spec in specs
        if all(
            spec.name not in dataset.fields or _is_empty(dataset, dataset.fields[spec.name])
            for dataset in datasets
        )
    ]


def of_several_tokenizers(
    datasets: Sequence[Dataset], specs: Sequence[ModalitySpec]
) -> dict[str, list[str]]:
    """{modality: data sets} where one id means different things, as the schemas say.

    Texts are not looked at: imports and tokenization describe one text tokenizer in two ways.
    """
    found = {}
    for spec in specs:
        made_by = {}
        for dataset in datasets if spec.kind in ("grid", "global") else ():
            schema = getattr(dataset.source, "fields", None) or {}
            field = schema.get(dataset.fields.get(spec.name, ""), {})
            if "fingerprint" in field and "dtype" in field:
                made_by[dataset.name] = field["fingerprint"]
        if len({*made_by.values()}) > 1:
            found[spec.name] = list(made_by)
    return found


def _is_empty(dataset: Dataset, field: str) -> bool:
    """Whether the schema of a data set names a field that none of its records has."""
    schema = getattr(dataset.source, "fields", None) or {}
    return field in schema and "dtype" not in schema[field]


def _check_field(dataset: Dataset, spec: ModalitySpec, schema: Mapping[str, Mapping]) -> None:
    name = dataset.fields[spec.name]
    what = f"data set {dataset.name!r}, modality {spec.name!r}"
    if name not in schema:
        raise ValueError(f"{what}: " + errors.unknown_value("record field", name, schema))
    field = schema[name]
    if field.get("vocab_size", 0) > spec.vocab_size:
        raise ValueError(
            f"{what}: tokens of a vocabulary of {field['vocab_size']} ids, the modality has "
            f"{spec.vocab_size}; set its vocab_size or tokenize with another tokenizer"
        )
    if "shape" not in field:
        return  # no record of this split has it
    shape = tuple(field["shape"])
    if settings.SETTINGS in schema and spec.kind in ("grid", "global"):
        shape = shape[1:]  # of one crop
    if spec.kind in ("grid", "global") and math.prod(shape) != spec.num_tokens:
        raise ValueError(
            f"{what}: {math.prod(shape)} tokens per record, the modality has {spec.num_tokens} "
            f"(grid {spec.grid}, {spec.codes_per_position} codes per position)"
        )
    if settings.SETTINGS in schema and spec.kind == "pixels":
        shape = shape[1:] if len(shape) == 4 else ()  # crops, or a picture of any size
    if spec.kind == "pixels" and len(shape) == 3 and shape != spec.image_shape:
        raise ValueError(f"{what}: pictures of {shape}, the modality takes {spec.image_shape}")


def read_records(
    source: Source, indices: Sequence[int], name: str = ""
) -> list[Mapping[str, Any] | ValueError]:
    """Read several records, each or why it cannot be used; at once where the source can.

    Storage that fails is tried again, of any source.

    Args:
      name: of the data set, for messages.

    Raises:
      StorageError: a record that cannot be read at the moment; names it.
    """
    if isinstance(source, Batched) and len(indices):
        together = _attempt(source.records, np.asarray(indices), _Place(source, indices[0], name))
        if not isinstance(together, ValueError):
            return [
                {key: values[row] for key, values in together.items()}
                for row in range(len(indices))
            ]
    return [_attempt(source.__getitem__, index, _Place(source, index, name)) for index in indices]


def _attempt(read: Callable[[Any], Any], argument: Any, place: "_Place") -> Any | ValueError:
    return left_out.attempt(functools.partial(storage_errors.retried, read, argument, file=place))


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a record lies; found out for messages alone, as it takes time."""

    source: Source
    index: int
    name: str

    def __str__(self) -> str:
        where = place(self.source, self.index)
        return f"data set {self.name!r}, {where}" if self.name else where


def place(source: Source, index: int) -> str:
    """Name a record of a source for messages: file and record where the source knows them."""
    return source.place(index) if isinstance(source, Placed) else f"record {index}"


def place_of(dataset: Dataset, record: int) -> str:
    """Name a record of a data set for messages."""
    return f"data set {dataset.name!r}, {place(dataset.source, record)}"
