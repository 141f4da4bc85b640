"""Memory for large arrays that come again and again, batch after batch.

The kernel clears every page that it gives to a process. For the padded embeddings of a batch, of
which a third is written, that takes twice the time of the copies. So an array gets memory that an
earlier one of its size has left.
"""

import collections
import functools
import math
import mmap
import weakref

import numpy as np
from jaxtyping import Int, Shaped

_MOST_FREE = 2  # blocks of one size that wait for the next array; more go back to the kernel
_MOST_SIZES = 4


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of undefined content, as `np.empty`; its memory is used again once it is freed.

    An array that shows a part of it, or one that JAX has taken without a copy, keeps it alive. It
    begins at a page, so XLA on a CPU takes it without a copy.
    """
    num_bytes = max(math.prod(shape) * dtype.itemsize, 1)
    free = _free(num_bytes)
    try:
        block = free.pop()
    except IndexError:
        # private: a forked process must not write into the arrays of this one
        block = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux
            block.madvise(mmap.MADV_HUGEPAGE)
    array = np.ndarray(shape, dtype, block)
    weakref.finalize(array, free.append, block).atexit = False
    return array


def clear_padding(vectors: Shaped[np.ndarray, "b l d"], lengths: Int[np.ndarray, "b"]) -> None:
    """Set what lies behind the first `lengths` vectors of each row to zero."""
    padded = vectors.view(np.uint8)  # a plain fill; that of bfloat16 goes number by number
    for row, length in enumerate(lengths.tolist()):
        padded[row, length:] = 0


@functools.lru_cache(maxsize=_MOST_SIZES)
def _free(num_bytes: int) -> collections.deque[mmap.mmap]:
    """Blocks of one size that no array uses, of this process."""
    return collections.deque(maxlen=_MOST_FREE)
