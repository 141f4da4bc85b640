"""Where the golden numbers of the published implementation lie: shipped core cases, or the full set."""

import os
import pathlib

import pytest

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
