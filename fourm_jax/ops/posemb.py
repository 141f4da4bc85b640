"""Sin-cos position tables, computed once on the host as constants.

Source: docs/published.md#embeddings.
"""

import numpy as np
from jaxtyping import Float, Int

MAX_TABLE = 2**27  # numbers in one table; the largest published one has 2 million


def check_size(num_positions: int, dim: int) -> None:
    """Check before it is made that a table fits the host.

    Raises:
      ValueError: it has more than `MAX_TABLE` numbers.
    """
    if num_positions * dim > MAX_TABLE:
        raise ValueError(
            f"position table of {num_positions} x {dim} numbers, allowed: {MAX_TABLE} in all"
        )


def sincos_1d(num_positions: int, dim: int) -> Float[np.ndarray, "n d"]:
    """Return [num_positions, dim] float32: sines in the first half, cosines in the second.

    Frequency k is 10000^(-k / (dim/2)); the halves are concatenated, not interleaved.

    Raises:
      ValueError: `dim` is odd, or the table is too large.
    """
    check_size(num_positions, dim)
    return _sincos(np.arange(num_positions), dim)


def sincos_2d(
    rows: int, columns: int, dim: int, *, as_published: bool = False
) -> Float[np.ndarray, "n d"]:
    """Return [rows * columns, dim] float32 for row-major tokens: row half, then column half.

    Args:
      rows, columns: of the token grid; coordinates are integers, not normalized.
      dim: width, a multiple of 4.
      as_published: divide the flat index by the number of *rows*, as the published
        `build_2d_sincos_posemb` does; equal to the default on square grids.

    Raises:
      ValueError: `dim` is not a multiple of 4, or the table is too large.
    """
    check_size(rows * columns, dim)
    if dim % 4:
        raise ValueError(f"2-D sin-cos positions need a width divisible by 4, got {dim}")
    flat = np.arange(rows * columns)
    divisor = rows if as_published else columns
    return np.concatenate(
        [_sincos(flat // divisor, dim // 2), _sincos(flat % divisor, dim // 2)], axis=-1
    )


def _sincos(positions: Int[np.ndarray, "n"], dim: int) -> Float[np.ndarray, "n d"]:
    if dim % 2:
        raise ValueError(f"sin-cos positions need an even width, got {dim}")
    # float32 throughout, as the tables that published weights were trained with; but for the power,
    # which NumPy computes in float32 one unit off on some CPUs: large positions multiply that.
    exponents = np.arange(dim // 2, dtype=np.float32) / np.float32(dim // 2)
    omega = np.float32(1) / np.power(10000.0, exponents.astype(np.float64)).astype(np.float32)
    angles = positions[:, None].astype(np.float32) * omega
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
