"""Ratios of a benchmark's row against the same case of an earlier file."""

import json
import numbers
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

Row = Mapping[str, Any]
# What says which case a row is; everything else that is a number is compared.
KEY = ("suite", "case", "batch", "budget", "dtype")
IGNORED = ("load_average",)


def read(path: str) -> dict[tuple, Row]:
    """Rows of a file of JSON lines by their key; of several with one key the last.

    Raises:
      ValueError: a line that is not a JSON object.
    """
    rows = {}
    for number, line in enumerate(pathlib.Path(path).read_text().splitlines(), 1):
        if not line.startswith("{"):
            continue  # the ratios of a run that compared, too
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        rows[_key(row)] = row
    return rows


def ratios(row: Row, earlier: Mapping[tuple, Row]) -> Iterator[str]:
    """Yield "name: before -> now (now / before)" for the numbers that both rows have."""
    before = earlier.get(_key(row), {})
    for name, value in row.items():
        if name in KEY + IGNORED or not _is_number(value) or not _is_number(before.get(name)):
            continue
        ratio = f" ({value / before[name]:.2f}×)" if before[name] else ""
        yield f"{name}: {before[name]} -> {value}{ratio}"


def _key(row: Row) -> tuple:
    return tuple(row.get(name) for name in KEY)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
