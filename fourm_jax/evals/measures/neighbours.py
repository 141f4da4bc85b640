"""What features are worth: their nearest neighbours' classes, and whom they retrieve."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

K, TEMPERATURE = 20, 0.07  # as published (Caron et al. 2021)


def unit(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows of length 1, in float64; a row of zeros stays."""
    features = np.asarray(features, np.float64)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1.0)


def knn(
    train: Float[np.ndarray, "m d"],
    labels: Int[np.ndarray, "m"],
    features: Float[np.ndarray, "n d"],
    *,
    k: int = K,
    temperature: float = TEMPERATURE,
) -> Float[np.ndarray, "n c"]:
    """Weight of every class: the k nearest training rows vote with exp(cosine / temperature).

    Raises:
      ValueError: fewer training rows than neighbours.
    """
    if not 1 <= k <= len(train):
        raise ValueError(f"k {k}, allowed: 1..{len(train)}, the number of training records")
    cosine = unit(features) @ unit(train).T
    nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
    near = np.take_along_axis(cosine, nearest, axis=1)
    weights = np.exp((near - near.max(axis=1, keepdims=True)) / temperature)
    votes = np.zeros((len(features), int(labels.max()) + 1))
    rows = np.repeat(np.arange(len(features)), k)
    np.add.at(votes, (rows, labels[nearest].ravel()), weights.ravel())
    return votes


def ranks(
    queries: Float[np.ndarray, "n d"], index: Float[np.ndarray, "n d"]
) -> Int[np.ndarray, "n"]:
    """How many other rows of the index are at least as near to each query as its own row is.

    All of them where a vector is no number.
    """
    cosine = unit(queries) @ unit(index).T
    own = np.diag(cosine)[:, None]
    return (~(cosine < own - 1e-12)).sum(axis=1) - 1


def recall(ranks: Int[np.ndarray, "n"], k: int) -> float:
    """Share of the queries whose own row is among the k nearest (R@k); ties count against."""
    return float(np.mean(ranks < k))


def top(votes: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n"], k: int) -> np.ndarray:
    """Whether the true class is among the k of most weight, one bool per row."""
    best = np.argsort(-votes, axis=1, kind="stable")[:, :k]
    return (best == np.asarray(labels)[:, None]).any(axis=1)


def majority(labels: Sequence[int] | np.ndarray) -> int:
    """The most frequent class."""
    return int(np.bincount(labels).argmax())
