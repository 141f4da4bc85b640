"""How far two sets of features lie apart: the distances that judge generated pictures."""

import numpy as np
from jaxtyping import Float


def frechet(first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m d"]) -> float:
    """Fréchet distance of two Gaussians with the sets' means and covariances (Heusel et al. 2017).

    Raises:
      ValueError: fewer than two rows.
    """
    first, second = (np.asarray(rows, np.float64) for rows in (first, second))
    if min(len(first), len(second)) < 2:
        raise ValueError(f"{len(first)} and {len(second)} rows, at least 2 are needed")
    difference = first.mean(0) - second.mean(0)
    one, two = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (first, second))
    root = _square_root(one)
    # trace of (one two)^(1/2) = sum of the roots of the eigenvalues of root two root
    values = np.linalg.eigvalsh(root @ two @ root)
    trace = np.sqrt(np.maximum(values, 0.0)).sum()
    return float(max(difference @ difference + np.trace(one) + np.trace(two) - 2 * trace, 0.0))


def kernel(first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m d"]) -> float:
    """Unbiased squared maximum mean discrepancy under (x·y / d + 1)³ (Bińkowski et al. 2018).

    Raises:
      ValueError: fewer than two rows.
    """
    first, second = (np.asarray(rows, np.float64) for rows in (first, second))
    n, m = len(first), len(second)
    if min(n, m) < 2:
        raise ValueError(f"{n} and {m} rows, at least 2 are needed")

    def means(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        return (one @ two.T / one.shape[1] + 1) ** 3

    own, other = means(first, first), means(second, second)
    within = (own.sum() - np.trace(own)) / (n * (n - 1))
    within += (other.sum() - np.trace(other)) / (m * (m - 1))
    return float(within - 2 * means(first, second).mean())


def _square_root(matrix: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """Symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
