"""How much of a codebook a set of tokens uses."""

import numpy as np
from jaxtyping import Integer


def usage(ids: Integer[np.ndarray, "*n"], vocab_size: int) -> float:
    """Share of the codes that occur, 0..1."""
    return float(np.count_nonzero(_counts(ids, vocab_size)) / vocab_size)


def perplexity(ids: Integer[np.ndarray, "*n"], vocab_size: int) -> float:
    """exp of the entropy of the codes' frequencies: `vocab_size` where all are as frequent."""
    counts = _counts(ids, vocab_size)
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(np.exp(-np.sum(shares * np.log(shares))))


def _counts(ids: np.ndarray, vocab_size: int) -> np.ndarray:
    ids = np.asarray(ids).ravel().astype(np.int64)
    if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise ValueError(f"id {wrong}, allowed: 0..{vocab_size - 1}")
    return np.bincount(ids, minlength=vocab_size)
