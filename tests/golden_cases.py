"""Where the golden numbers lie: core cases shipped with the repository, or the full set."""

import os
import pathlib
from collections.abc import Iterable

import pytest

from experiments.parity import quantity

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


def assert_all_pass(quantities: Iterable[quantity.Quantity]) -> None:
    """Judge as the command `verify_reference` does; there must be something to judge."""
    results = [quantity.judge("", q) for q in quantities]
    assert results
    assert not [str(result) for result in results if not result.passed]
