"""Work that the processes of a command divide, each on its own devices; all get all results."""

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 2**26  # bytes of every process that are on the devices at once
KINDS = "biuf"  # of arrays: what numpy writes without pickles


def divided(items: Iterable[Item], compute: Callable[[Item], Result]) -> list[Result]:
    """`compute` of every item, in their order; process i of n takes the items i, i + n, …

    An item is computed by one process as a whole, so results are those of one process alone, bit
    for bit. All processes must call this with the same items.

    Args:
      compute: gives a tree of numpy arrays of numbers, of the same structure for every item.
    """
    index, count = jax.process_index(), jax.process_count()
    if count == 1:
        return [compute(item) for item in items]
    rest = iter(items)
    first = list(itertools.islice(rest, 1))
    own: dict[int, Result] = {}
    total = 0
    for number, item in enumerate(itertools.chain(first, rest)):
        total += 1
        if number % count == index:
            own[number] = compute(item)
    if not total:
        return []
    # Whoever has no item of its own learns from the first one what a result looks like.
    structure: Any = jax.tree.structure(next(iter(own.values())) if own else compute(first[0]))
    arrays = {
        f"{number}/{leaf}": array
        for number, one in own.items()
        for leaf, array in enumerate(jax.tree.leaves(one))
    }
    found: dict[str, np.ndarray] = {}
    for part in gathered(_packed(arrays)):
        found |= _unpacked(part)
    leaves = range(structure.num_leaves)
    return [
        jax.tree.unflatten(structure, [found[f"{number}/{leaf}"] for leaf in leaves])
        for number in range(total)
    ]


def gathered(content: bytes) -> Iterator[bytes]:
    """The bytes of every process, in the order of their numbers; they go through the devices."""
    found = multihost_utils.process_allgather(np.array(divmod(len(content), CHUNK), np.int32))
    sizes = [int(chunks) * CHUNK + int(rest) for chunks, rest in found]
    parts = [bytearray() for _ in sizes]
    for start in range(0, max(sizes), CHUNK):
        own = content[start : start + CHUNK]
        width = min(CHUNK, max(sizes) - start)  # the same on all, whatever they have left
        padded = np.frombuffer(own.ljust(width, b"\0"), np.uint8)
        rows = multihost_utils.process_allgather(padded)
        for part, size, row in zip(parts, sizes, rows, strict=True):
            part += np.asarray(row)[: max(size - start, 0)].tobytes()
    for part in parts:
        yield bytes(part)


def whole(tree: Any) -> Any:
    """Arrays that are cut over the devices of all processes, whole and in numpy, in each one."""
    return multihost_utils.process_allgather(tree, tiled=True)


def _packed(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    plain: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    assert all(array.dtype.kind in KINDS for array in plain.values()), "numbers of numpy alone"
    np.savez(buffer, **plain)
    return buffer.getvalue()


def _unpacked(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
