"""How fast each parameter learns: frozen, slowed down, or less the deeper it lies.

What is frozen has no optimizer state: the optimizer sees a tree without it. Of a packed table it
may be some of the rows.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fourm_jax.models import parts
from fourm_jax.utils import tree

_ENCODER_BLOCK = re.compile(r"(^|/)encoder/blocks/")
_ENCODER_INPUT = re.compile(r"(^|/)(encoder_embedding/|modality_embedding|registers)")
Rate = float | np.ndarray  # of a whole leaf, or of each entry of its first axis


@dataclasses.dataclass(frozen=True)
class Rates:
    """Factors on the learning rate, by the path of a leaf; those that are missing are 1."""

    by_path: Mapping[str, Rate]

    def __bool__(self) -> bool:
        return bool(self.by_path)

    def take(self, params: Any) -> dict[str, Any]:
        """The tree without what is frozen; a table keeps those of its rows that learn."""
        flat = {}
        for path, leaf in tree.named_leaves(params).items():
            rows = _learning_rows(self._of(path))
            if rows is None:
                flat[path] = leaf
            elif len(rows):
                flat[path] = leaf[rows]
        return flax.traverse_util.unflatten_dict(flat, sep="/")

    def put(self, taken: Any, params: Any) -> Any:
        """A tree like `params` of what was made of `take`, times the factors; 0 where frozen."""
        flat = tree.named_leaves(taken)

        def one(path: str, leaf: Any) -> Any:
            rate = self._of(path)
            rows = _learning_rows(rate)
            if rows is None:
                return flat[path] * _aligned(rate, leaf)
            whole = jnp.zeros(leaf.shape, leaf.dtype)
            if not len(rows):
                return whole
            factor = _aligned(np.asarray(rate)[rows], leaf)
            return whole.at[rows].set((flat[path] * factor).astype(leaf.dtype))

        return tree.map_named(one, params)

    def without_gradient(self, params: Any) -> Any:
        """The same values; what is frozen costs no gradient and adds none to its norm."""

        def one(path: str, leaf: Any) -> Any:
            rate = self._of(path)
            rows = _learning_rows(rate)
            if rows is None:
                return leaf
            held = jax.lax.stop_gradient(leaf)
            return (
                jnp.where(_aligned(np.asarray(rate) > 0, leaf), leaf, held) if len(rows) else held
            )

        return tree.map_named(one, params)

    def hold(self, new: Any, old: Any) -> Any:
        """`old` where a leaf, or row, is frozen, else `new`."""

        def one(path: str, leaf: Any, before: Any) -> Any:
            rate = self._of(path)
            return jnp.where(_aligned(np.asarray(rate) > 0, leaf), leaf, before)

        return jax.tree_util.tree_map_with_path(
            lambda path, *leaves: one(tree.path_name(path), *leaves), new, old
        )

    def _of(self, path: str) -> Rate:
        return self.by_path.get(path, 1.0)


ALL = Rates({})  # everything learns at the full rate


def make(
    shapes: Any,
    packed: parts.Packed,
    *,
    freeze: str = "",
    never: Callable[[str], bool] = lambda part: False,
    scales: Mapping[str, float] | None = None,
    layer_decay: float = 1.0,
) -> Rates:
    """The rates of a tree of shapes.

    Args:
      shapes: parameters, or all variables that may be frozen.
      packed: its packed tables.
      freeze: regex on the names of parts (`models.parts`) that stay as they are.
      never: whether the task lets nobody train a part.
      scales: {regex: factor}; the first one that a name contains counts.
      layer_decay: factor per encoder block from the last one down (arXiv:2106.08254); the
        embeddings count as one more block, all else learns at the full rate.

    Raises:
      ValueError: a regex that is none, or that no part contains.
    """
    frozen = {freeze: 0.0} if freeze else {}
    patterns = {**frozen, **(scales or {}), **frozen}  # first in order, and last to speak
    names = _part_names(shapes, packed)
    for pattern in patterns:
        check_pattern(pattern, names, "init.freeze" if pattern == freeze else "optimizer.lr_scales")
    depth = max(
        (leaf.shape[0] for path, leaf in _leaves(shapes) if _ENCODER_BLOCK.search(path)), default=0
    )

    def of_name(name: str) -> float:
        if never(name):
            return 0.0
        return next((value for key, value in patterns.items() if re.search(key, name)), 1.0)

    found: dict[str, Rate] = {}
    for path, leaf in _leaves(shapes):
        rate: Rate
        if path in packed:
            rate = np.concatenate(
                [np.full(rows.size, of_name(f"{path}/{rows.name}")) for rows in packed[path]]
            ).astype(np.float32)
            rate = float(rate[0]) if (rate == rate[0]).all() else rate
        else:
            rate = of_name(path)
        if layer_decay != 1.0 and _ENCODER_BLOCK.search(path):
            rate = (rate * layer_decay ** np.arange(leaf.shape[0], 0, -1)).astype(np.float32)
        elif layer_decay != 1.0 and _ENCODER_INPUT.search(path):
            rate = rate * layer_decay ** (depth + 1)
        if not isinstance(rate, float) or rate != 1.0:
            found[path] = rate
    return Rates(found)


def limit(transform: optax.GradientTransformation, rates: Rates) -> optax.GradientTransformation:
    """The optimizer with these rates; it keeps nothing about what is frozen."""
    if not rates:
        return transform

    def init(params: Any) -> Any:
        return transform.init(rates.take(params))

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        direction, state = transform.update(rates.take(gradient), state, rates.take(params))
        return rates.put(direction, params), state

    return optax.GradientTransformation(init, update)


def check_pattern(pattern: str, names: list[str], what: str) -> None:
    """Refuse a regex that is none, or that no name contains.

    Raises:
      ValueError: names `what` it stands in, the regex and some of the names.
    """
    try:
        matches = any(re.search(pattern, name) for name in names)
    except re.error as error:
        raise ValueError(f"{what}: {pattern!r} is no regular expression: {error}") from error
    if not matches:
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise ValueError(f"{what}: {pattern!r} matches no parameter; there are: {shown}")


def _part_names(shapes: Any, packed: parts.Packed) -> list[str]:
    """Names as `parts.split` gives them, of shapes."""
    names = []
    for path, _ in _leaves(shapes):
        names += [f"{path}/{rows.name}" for rows in packed[path]] if path in packed else [path]
    return names


def _leaves(shapes: Any) -> list[tuple[str, Any]]:
    return list(tree.named_leaves(shapes).items())


def _learning_rows(rate: Rate) -> np.ndarray | None:
    """Rows that learn; None where all do."""
    learns = np.atleast_1d(np.asarray(rate) > 0)
    return None if learns.all() else np.flatnonzero(learns)


def _aligned(values: Any, leaf: Any) -> Any:
    """Values per entry of the first axis, against the other axes."""
    values = np.asarray(values)
    return values.reshape(values.shape + (1,) * (leaf.ndim - 1)) if values.ndim else values
