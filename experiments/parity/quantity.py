"""One recorded number, list or text beside ours, and the verdict on the two."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from fourm_jax.convert import safetensors_io

EXACT = (0.0, 0.0)
LOSS = (1e-8, 1e-5)  # (absolute, relative)
GRADIENT = (1e-5, 1e-3)
TABLES = 2e-5  # sin-cos buffers are computed, not stored
CLOSE = (1e-5, 1e-5)
VALUES = (2e-4, 1e-4)
NEAR_TIE = 1e-4  # ids may differ where the two best scores are closer than this


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What we found and what was recorded.

    Attributes:
      name: of the quantity inside its case.
      found, expected: arrays, or texts, lists and dictionaries, which must be equal.
      tolerance: (absolute, relative) for floats; integers and booleans must always be equal.
      understood: False for a recorded quantity that nothing here computes: it fails.
      gaps: for ids that are the best of some scores: how much better our score of the id found is
        than that of the id expected. Ids may differ where that is below `NEAR_TIE`; the verdict
        says how many do.
    """

    name: str
    found: Any
    expected: Any
    tolerance: tuple[float, float] = VALUES
    understood: bool = True
    gaps: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """The verdict on one quantity.

    Attributes:
      max_abs, max_rel: largest errors; nan where the two cannot be subtracted.
      note: why it failed, where the numbers do not say it; ids that differ at near ties.
    """

    case: str
    quantity: str
    max_abs: float
    max_rel: float
    tolerance: str
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        verdict = "pass" if self.passed else "FAIL"
        numbers = f"abs {self.max_abs:.3g} rel {self.max_rel:.3g} tolerance {self.tolerance}"
        return f"{self.case} {self.quantity} {numbers} {verdict} {self.note}".rstrip()


class Recorded(Mapping):
    """A mapping that remembers which of its entries were read."""

    def __init__(self, values: Mapping[str, Any]):
        self._values = values
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        value = self._values[key]
        self._read.add(key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def unread(self) -> Iterator[Quantity]:
        """A failing quantity for every entry that nobody compared."""
        yield from unknown(name for name in self._values if name not in self._read)


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file; floats of half the width as float32.

    Raises:
      ValueError: see `safetensors_io.SafeFile`.
    """
    tensors = dict(safetensors_io.Tensors(safetensors_io.SafeFile(path)))
    halves = [n for n, a in tensors.items() if jnp.issubdtype(a.dtype, jnp.floating)]
    halves = [name for name in halves if tensors[name].dtype.itemsize < 4]
    return tensors | {name: tensors[name].astype(np.float32) for name in halves}


def table_tolerance(dtype: np.dtype) -> tuple[float, float]:
    """Tolerance of a sin-cos buffer that a file holds in `dtype`."""
    return (max(TABLES, float(jnp.finfo(dtype).eps)), 0.0)


def unknown(names: Iterable[str]) -> Iterator[Quantity]:
    """A failing quantity for each of these names."""
    for name in sorted(names):
        yield Quantity(name, None, None, understood=False)


def described_cases(
    folder: pathlib.Path, check: Callable[[pathlib.Path], Iterator[Quantity]]
) -> Iterator[tuple[str, Iterator[Quantity]]]:
    """(name, quantities) of every .safetensors file; a file beside them that is not the .json
    description of one is not understood."""
    stems = {path.stem for path in folder.glob("*.safetensors")}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            yield path.stem, check(path)
        elif path.suffix != ".json" or path.stem not in stems:
            yield path.name, unknown(["(file)"])


def judge(case: str, quantity: Quantity) -> Result:
    """Compare, element by element for numbers."""
    if not quantity.understood:
        nan = float("nan")
        return Result(case, quantity.name, nan, nan, "-", False, "(not understood)")
    found, expected = _numbers(quantity.found), _numbers(quantity.expected)
    if found is None or expected is None:
        return _judge_objects(case, quantity)
    if found.shape != expected.shape:
        note = f"(shape {found.shape}, recorded {expected.shape})"
        return Result(case, quantity.name, float("nan"), float("nan"), "-", False, note)
    exact = expected.dtype.kind != "f" or quantity.tolerance == EXACT
    absolute, relative = EXACT if exact else quantity.tolerance
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    note = ""
    if quantity.gaps is not None:
        tied = (found != expected) & (quantity.gaps >= 0) & (quantity.gaps < NEAR_TIE)
        found = np.where(tied, expected, found)
        note = f"({tied.sum()} of {tied.size} differ at near ties, margin < {NEAR_TIE:g})"
        note = note if tied.any() else ""
    with np.errstate(invalid="ignore"):
        error = np.where(found == expected, 0.0, np.abs(found - expected))
    size = np.abs(np.where(np.isfinite(expected), expected, 0.0))
    share = error[size > 0] / size[size > 0]
    return Result(
        case,
        quantity.name,
        float(error.max(initial=0.0)),
        float(share.max(initial=0.0)),
        "exact" if exact else f"{absolute:g}+{relative:g}*|x|",
        bool((error <= absolute + relative * size).all()),
        note,
    )


def _numbers(value: Any) -> np.ndarray | None:
    """The value as a numeric array; None for texts, dictionaries and ragged lists."""
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    return array if array.dtype.kind in "fiub" else None


def _judge_objects(case: str, quantity: Quantity) -> Result:
    passed, note = quantity.found == quantity.expected, ""
    if not passed and isinstance(quantity.expected, list) and isinstance(quantity.found, list):
        pairs = enumerate(zip(quantity.found, quantity.expected, strict=False))
        index, pair = next(((i, p) for i, p in pairs if p[0] != p[1]), (None, ()))
        note = f"(entry {index}: {' instead of '.join(repr(x)[:60] for x in pair)})"
        if index is None:
            note = f"({len(quantity.found)} entries, recorded {len(quantity.expected)})"
    elif not passed:
        note = f"({quantity.found!r:.60} instead of {quantity.expected!r:.60})"
    error = float(not passed)
    return Result(case, quantity.name, error, error, "exact", passed, note)
