"""Where the golden numbers lie: core cases shipped with the repository, or the full set."""

import os
import pathlib
from collections.abc import Callable, Iterable

import pytest

from experiments.parity import quantity

# Marks tests of recordings that do not ship: `make test-goldens` runs them.
FULL_SET = pytest.mark.full_set
SHIPPED = pathlib.Path(__file__).parent / "goldens"
FULL = pathlib.Path(
    os.environ.get("FOURM_GOLDENS", pathlib.Path(__file__).parents[2] / "shared" / "goldens")
)


def directory(part: str) -> pathlib.Path:
    """Folder of the full set for `part` (e.g. "fm"); skips the test where it is not there."""
    if not (FULL / part).is_dir():
        pytest.skip(f"full golden set not found; set FOURM_GOLDENS to a folder with {part!r}")
    return FULL / part


def shipped(part: str) -> pathlib.Path:
    """Folder of the core cases for `part` that come with the repository."""
    return SHIPPED / part


def either_set(function: Callable[..., None]) -> Callable[..., None]:
    """Run a test with `where`, once per set; it finds the folder of a part with `where(part)`."""
    sets = [pytest.param(shipped, id="shipped"), pytest.param(directory, id="full", marks=FULL_SET)]
    return pytest.mark.parametrize("where", sets)(function)


def assert_all_pass(quantities: Iterable[quantity.Quantity]) -> None:
    """Judge as the command `verify_reference` does; there must be something to judge."""
    results = [quantity.judge("", q) for q in quantities]
    assert results
    assert not [str(result) for result in results if not result.passed]
