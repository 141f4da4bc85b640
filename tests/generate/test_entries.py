"""Entries of the batch contract are read as what they are, or refused."""

import ml_dtypes
import numpy as np
import pytest

from fourm_jax.generate import conditions
from tests.generate import tiny

SPECS = {spec.name: spec for spec in tiny.SPECS}
PIXELS = np.zeros((3, 4, 6, 3), np.uint8)
TEXT = np.full((3, 6), 210)
CELLS = np.zeros((3, 9), np.int32)
VECTORS = np.zeros((3, 5, 6), np.float32)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("rgb", {"pixels": PIXELS, "present": np.array([True, False, True])}),
        ("rgb", {"pixels": PIXELS, "known": np.ones((3, 6), bool)}),
        ("edge", {"ids": CELLS.reshape(3, 3, 3), "known": np.ones((3, 9), bool)}),
        ("caption", {"ids": TEXT, "length": np.array([0, 6, 3]), "chunk": TEXT}),
        ("embedding", {"embeddings": VECTORS.astype(ml_dtypes.bfloat16), "length": [5, 1, 0]}),
    ],
)
def test_an_entry_of_its_kind_is_taken_as_it_is(name, entry):
    taken = conditions.encode(SPECS[name], entry, {})
    assert taken.keys() == entry.keys()


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("rgb", {"pixels": PIXELS / 255}, r"'rgb': pixels float64 .* uint8 \[rows, 4, 6, 3\]"),
        ("rgb", {"pixels": PIXELS[:, :, :4]}, r"allowed: uint8 \[rows, 4, 6, 3\]"),
        ("rgb", {"pixels": PIXELS, "present": np.ones(2)}, r"present .* 1 for each of 3 rows"),
        ("edge", {"pixels": PIXELS}, r"an entry of \['pixels'\], allowed: 'ids' and any of"),
        ("edge", {"ids": CELLS[:, :8]}, r"'edge': ids int32 \[3, 8\], allowed: 9 in each row"),
        ("edge", {"ids": CELLS[:0]}, "'edge': no rows"),
        ("edge", {"ids": CELLS, "known": np.ones((3, 5))}, r"known .* 9 for each of 3 rows"),
        ("caption", {"length": np.array([3])}, "allowed: 'ids' and any of"),
        ("caption", {"ids": TEXT, "length": np.array([3, 2])}, "length .* 1 for each of 3 rows"),
        ("caption", {"ids": TEXT, "length": np.array([3, 7, 2])}, r"whole numbers 0\.\.6"),
        ("embedding", {"embeddings": VECTORS[..., :5]}, r"allowed: float \[rows, up to 5, 6\]"),
        (
            "embedding",
            {"embeddings": np.full_like(VECTORS, np.nan)},
            "vectors with NaN or infinity",
        ),
        ("embedding", np.full_like(VECTORS, np.inf), "vectors with NaN or infinity"),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(name, entry, message):
    with pytest.raises(ValueError, match=message):
        conditions.encode(SPECS[name], entry, {})
