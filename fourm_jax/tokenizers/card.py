"""The card of a trained tokenizer: what goes in, what comes out and how well, as JSON."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from fourm_jax.tokenizers.signal import Signal
from fourm_jax.utils import io, notebook, plain_data, upgrades

FORMAT = 1
RULES: Mapping[str, plain_data.Rule] = {
    "name": plain_data.TEXT,
    "family": plain_data.TEXT,
    "arguments": plain_data.DICT,
    "reconstruction": plain_data.dict_of(plain_data.number(-math.inf, math.inf)),
    "training_steps": plain_data.integer(0, 10**12),
    "signal": plain_data.DICT,
    "grid": plain_data.list_of(plain_data.integer(1, 2**16), 2),
    "vocab_size": plain_data.integer(1, 2**24),
    "codes_per_position": plain_data.integer(1, 2**12),
}
# Largest value of arguments of `build`, by name: published tokenizers stay far below.
LARGEST: Mapping[str, int] = {
    "blocks_per_level": 64,
    "class_dim": 2**16,
    "depth": 512,
    "dim": 2**16,
    "image_size": 2**13,
    "latent_dim": 2**16,
    "num_channels": 2**16,
    "num_classes": 2**20,
    "num_heads": 2**12,
    "num_times": 10**5,
    "patch_size": 2**13,
}
LARGEST_OTHER = 2**24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """Facts about one tokenizer; everything but the first block is derived from the module.

    Attributes:
      name: of the tokenizer, as modality specs refer to it.
      family: module of `fourm_jax.tokenizers` that builds it.
      arguments: of that module's `build`, plain data.
      reconstruction: errors on held-out data in natural units, by metric name.
      training_steps: it was trained for.
      signal: raw dtype, axes, range and normalization (None = no bound).
      grid: (rows, columns) of token positions at the nominal size.
      vocab_size: number of ids per position.
      codes_per_position: parallel ids at each position.
    """

    name: str
    family: str
    arguments: Mapping[str, Any]
    reconstruction: Mapping[str, float] = dataclasses.field(default_factory=dict)
    training_steps: int = 0
    signal: Mapping[str, Any]
    grid: tuple[int, int]
    vocab_size: int
    codes_per_position: int
    format: int = FORMAT

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return notebook.table(f"tokenizer {self.name}", dataclasses.asdict(self))

    def write(self, path: epath.PathLike) -> None:
        """Write as JSON, atomically."""
        io.write_json(path, dataclasses.asdict(self))

    @classmethod
    def read(cls, path: epath.PathLike) -> "Card":
        """Read what `write` wrote.

        Raises:
          ValueError: not JSON, another format, a field missing or unknown.
        """
        value = io.read_json(path)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            found = value.get("format") if isinstance(value, dict) else value
            raise ValueError(f"{path}: card format {found!r}, this version reads {FORMAT}")
        fields = {field.name for field in dataclasses.fields(cls)}
        if fields != set(value):
            missing, unknown = sorted(fields - set(value)), sorted(set(value) - fields)
            raise ValueError(f"{path}: card fields missing {missing}, unknown {unknown}")
        plain_data.check(value, RULES, path)
        arguments = upgrades.upgrade_arguments(value["arguments"])
        check_arguments(arguments, path)
        return cls(**{**value, "arguments": arguments, "grid": tuple(value["grid"])})


def check_arguments(arguments: Mapping[str, Any], where: Any) -> None:
    """Check that a stranger's arguments of `build` are of bounded size.

    Raises:
      ValueError: a number beyond `LARGEST`, a long list or text; names `where`.
    """
    _check_argument(arguments, "arguments", where)


def _check_argument(value: Any, name: str, where: Any) -> None:
    largest = LARGEST.get(name, LARGEST_OTHER)
    if isinstance(value, Mapping):
        for key, part in value.items():
            plain_data.check({"name": key}, {"name": plain_data.TEXT}, where)
            _check_argument(part, key, where)
    elif isinstance(value, list | tuple):
        if len(value) > plain_data.MAX_TEXT:
            raise ValueError(f"{where}: {name} has {len(value)} items")
        for part in value:
            _check_argument(part, name, where)
    elif not isinstance(value, Signal):
        rules = {name: plain_data.scalar(largest)}
        plain_data.check({name: value}, rules, where)


def describe_signal(signal: Signal) -> dict[str, Any]:
    """Fields of a signal as strict JSON values: infinite bounds become None.

    Cards from before there was `standardize` lack it, and so do all that do not.
    """
    fields = dataclasses.asdict(signal)
    if not signal.standardize:
        del fields["standardize"]
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in fields.items()
    }


def plain_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `build` as strict JSON values: a `Signal` becomes its non-default fields."""
    signal = arguments["signal"]
    if not isinstance(signal, Signal):
        return dict(arguments)
    own = {
        field.name: getattr(signal, field.name)
        for field in dataclasses.fields(Signal)
        if getattr(signal, field.name) != field.default
    }
    return {**arguments, "signal": own}
